#!/usr/bin/env bash
# The core is pure: no object of it may name a clock, a socket, a thread, SQLite or a stream. $1: libgrange_core.a
set -euo pipefail
banned='clock_gettime|gettimeofday|steady_clock3now|system_clock3now|socket|connect$|recv|getrandom|random_device|pthread_create|std6thread|sqlite3_|fopen|iostream|basic_ofstream|basic_ifstream|ios_base4Init|getenv'
archive=${1:-}
[ -s "$archive" ] || { echo "There is no archive to look into: \"$archive\""; exit 2; }
# Each on its own line: inside a pipe or a condition a failing nm would go by unseen.
undefined=$(nm --undefined-only "$archive")
functions=$(nm --defined-only "$archive")
count=$(grep -c ' T ' <<<"$functions" || true)
[ "$count" -gt 0 ] || { echo "The archive holds no function: $archive"; exit 2; }
found=$(grep -E "$banned" <<<"$undefined" || true)
if [ -n "$found" ]; then
  echo "The core names what it must not:"
  echo "$found"
  exit 1
fi
echo "$count functions of the core name no clock, socket, thread, file or stream."
