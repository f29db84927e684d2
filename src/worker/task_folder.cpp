#include "worker/task_folder.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "worker/sha256.hpp"

namespace grange::worker {

namespace fs = std::filesystem;

namespace {
Error io(const std::string& what, int error) {
  return Error{ErrorClass::io, what + ": " + std::strerror(error)};
}
constexpr std::size_t kBuffer = 1 << 18;
}  // namespace

Result<> make_empty_folder(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  fs::create_directories(fs::path(folder).parent_path(), error);
  if (::mkdir(folder.c_str(), 0700) != 0) return io("The task's folder " + folder + " could not be made", errno);
  return {};
}

void remove_folder(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (!error) return;
  // A task may have taken its own right to write away.
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied, ignored), end;
       it != end && !ignored; it.increment(ignored)) {
    if (it->is_directory(ignored) && !it->is_symlink(ignored))
      fs::permissions(it->path(), fs::perms::owner_all, ignored);
  }
  fs::permissions(folder, fs::perms::owner_all, ignored);
  fs::remove_all(folder, ignored);
}

Result<> put_in(const std::string& folder, const std::string& path, const std::string& source, std::uint32_t mode) {
  const std::string target = folder + "/" + path;
  std::error_code error;
  fs::create_directories(fs::path(target).parent_path(), error);
  const Fd from(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
  if (!from) return io(source, errno);
  const Fd to(::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to) return io("files_in: " + path, errno);
  if (::ioctl(to.get(), FICLONE, from.get()) != 0) {  // shares the blocks where the file system can
    const auto buffer = std::make_unique<std::array<char, kBuffer>>();
    for (;;) {
      const ssize_t n = ::read(from.get(), buffer->data(), buffer->size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return io(source, errno);
      if (n == 0) break;
      for (ssize_t done = 0; done < n;) {
        const ssize_t w = ::write(to.get(), buffer->data() + done, static_cast<std::size_t>(n - done));
        if (w < 0 && errno != EINTR) return io("files_in: " + path, errno);
        if (w > 0) done += w;
      }
    }
  }
  if (::fchmod(to.get(), mode == 0 ? 0644 : (mode & 0777) | 0400) != 0) return io("files_in: " + path, errno);
  return {};
}

Result<> write_in(const std::string& folder, const std::string& path, std::string_view bytes, std::uint32_t mode) {
  const std::string target = folder + "/" + path;
  std::error_code error;
  fs::create_directories(fs::path(target).parent_path(), error);
  const Fd to(::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to) return io(path, errno);
  while (!bytes.empty()) {
    const ssize_t n = ::write(to.get(), bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) return io(path, errno);
    if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::fchmod(to.get(), mode) != 0) return io(path, errno);
  return {};
}

Result<TakenFile> take_out(const std::string& folder, const std::string& path) {
  Fd at(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::string rest = path;
  const auto missing = [&] { return Error{ErrorClass::not_found, "files_out: " + path + " was not made"}; };
  if (!at) return missing();
  for (std::size_t slash = rest.find('/'); slash != std::string::npos; slash = rest.find('/')) {
    at = Fd(::openat(at.get(), rest.substr(0, slash).c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!at) return missing();
    rest.erase(0, slash + 1);
  }
  TakenFile out;
  out.fd = Fd(::openat(at.get(), rest.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info;
  if (!out.fd) {
    if (errno == ELOOP)
      return Error{ErrorClass::forbidden, "files_out: " + path + " is a link; links are not followed"};
    return missing();
  }
  if (::fstat(out.fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return Error{ErrorClass::forbidden, "files_out: " + path + " is not a plain file"};
  }
  out.bytes = static_cast<Bytes>(info.st_size);
  out.mode = info.st_mode & 0777;
  Sha256 hash;
  const auto buffer = std::make_unique<std::array<char, kBuffer>>();
  for (;;) {
    const ssize_t n = ::read(out.fd.get(), buffer->data(), buffer->size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io("files_out: " + path, errno);
    if (n == 0) break;
    hash.update({buffer->data(), static_cast<std::size_t>(n)});
  }
  out.sha256 = hash.hex();
  return out;
}

std::string substitute(std::string_view text, std::string_view argument, std::string_view index) {
  constexpr std::string_view kArgument = "{}", kIndex = "{index}";
  std::string out;
  while (!text.empty()) {
    if (text.substr(0, kArgument.size()) == kArgument) {
      out += argument;
      text.remove_prefix(kArgument.size());
    } else if (text.substr(0, kIndex.size()) == kIndex) {
      out += index;
      text.remove_prefix(kIndex.size());
    } else {
      out += text.front();
      text.remove_prefix(1);
    }
  }
  return out;
}

namespace {

// Where in a script the shell is: enough of its grammar to know which quotes are open.
class ShellPlace {
 public:
  enum class In { bare, single, twice, arithmetic };  // twice: "..."
  In in() const {
    return open_.back() == '\''  ? In::single
           : open_.back() == '"' ? In::twice
           : open_.back() == 'a' ? In::arithmetic
                                 : In::bare;
  }

  // How many characters at the front of `rest` belong together; `rest` is not empty.
  std::size_t step(std::string_view rest) {
    const char c = rest.front();
    const char before = std::exchange(before_, c);
    if (comment_) {
      comment_ = c != '\n';
      return 1;
    }
    if (open_.back() == '\'') {
      if (c == '\'') open_.pop_back();
      return 1;
    }
    if (c == '\\' && rest.size() > 1) {
      before_ = 'x';
      return 2;
    }
    if (rest.substr(0, 3) == "$((") {
      open_ += "aa";
      return 3;
    }
    if (rest.substr(0, 2) == "$(") {
      open_ += ')';
      return 2;
    }
    if (c == '`') {
      if (open_.back() == '`') {
        open_.pop_back();
      } else {
        open_ += '`';
      }
      return 1;
    }
    if (c == '"') {
      if (open_.back() == '"') {
        open_.pop_back();
      } else {
        open_ += '"';
      }
      return 1;
    }
    if (open_.back() == '"') return 1;
    if (c == '\'') open_ += '\'';
    if (c == '(') open_ += open_.back() == 'a' ? 'a' : ')';
    if (c == ')' && (open_.back() == ')' || open_.back() == 'a')) open_.pop_back();
    if (c == '#' && in() == In::bare && (before == '\n' || before == ' ' || before == '\t' || before == ';'))
      comment_ = true;
    return 1;
  }

 private:
  std::string open_ = ".";  // innermost last: ' " ` ) and a for each parenthesis of $((...))
  char before_ = '\n';
  bool comment_ = false;
};

}  // namespace

std::string shell_substitute(std::string_view script, std::string_view index) {
  constexpr std::string_view kArgument = "{}", kIndex = "{index}";
  std::string out;
  ShellPlace place;
  while (!script.empty()) {
    const bool shells_own = !out.empty() && out.back() == '$';
    if (!shells_own && script.substr(0, kArgument.size()) == kArgument) {
      switch (place.in()) {
        case ShellPlace::In::bare:
          out += "\"${GRANGE_ARG}\"";
          break;
        case ShellPlace::In::single:
          out += "'\"${GRANGE_ARG}\"'";
          break;
        case ShellPlace::In::twice:
        case ShellPlace::In::arithmetic:
          out += "${GRANGE_ARG}";
          break;
      }
      script.remove_prefix(kArgument.size());
    } else if (!shells_own && script.substr(0, kIndex.size()) == kIndex) {
      out += index;
      script.remove_prefix(kIndex.size());
    } else {
      const std::size_t size = place.step(script);
      out += script.substr(0, size);
      script.remove_prefix(size);
    }
  }
  return out;
}

bool names_argument(std::string_view script) {
  return script.find("{}") != std::string_view::npos;
}

}  // namespace grange::worker
