#!/usr/bin/env bash
# The core is pure: no object of it may name a clock, a socket, a thread, SQLite or a stream. $1: libgrange_core.a
set -euo pipefail
banned='clock_gettime|gettimeofday|steady_clock3now|system_clock3now|socket|connect$|recv|getrandom|random_device|pthread_create|std6thread|sqlite3_|fopen|iostream|basic_ofstream|basic_ifstream|ios_base4Init|getenv'
found=$(nm --undefined-only "$1" | grep -E "$banned" || true)
if [ -n "$found" ]; then
  echo "The core names what it must not:"
  echo "$found"
  exit 1
fi
echo "$(nm "$1" 2>/dev/null | grep -c ' T ') functions of the core name no clock, socket, thread, file or stream."
