// The folder of one command task: made fresh, filled from blobs, read back without following a link, removed. Blocking:
// for the disk thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

Result<> make_empty_folder(const std::string& folder);  // what was in it goes; 0700
void remove_folder(const std::string& folder);
// Copies `source` to folder/path; `path` was checked by safe_relative and nothing of the task has run yet.
Result<> put_in(const std::string& folder, const std::string& path, const std::string& source, std::uint32_t mode);
// Writes folder/path; as above.
Result<> write_in(const std::string& folder, const std::string& path, std::string_view bytes, std::uint32_t mode);

struct TakenFile {
  Fd fd;
  Bytes bytes = 0;
  std::uint32_t mode = 0;
  std::string sha256;
};
// Opens folder/path, a plain file, through no link, and reads its hash.
Result<TakenFile> take_out(const std::string& folder, const std::string& path);

// "{}" and "{index}" in one pass: what an argument holds is not looked at again.
std::string substitute(std::string_view text, std::string_view argument, std::string_view index);

// The same for a script of /bin/sh, where an argument must never become code. "{}" turns into the value of GRANGE_ARG
// as one word, quoted for where it stands (bare, in "...", in '...', in $(...)): the shell does not look into the value
// of a variable again, so even where the place is misjudged (a here-document) nothing of it runs. "{index}" is a
// number. Behind a "$" they are the shell's own.
std::string shell_substitute(std::string_view script, std::string_view index);
bool names_argument(std::string_view script);  // does "{}" stand in it

}  // namespace grange::worker
