#include "store/blobs.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <vector>

#include "store/folder.hpp"

namespace grange::store {
namespace {

constexpr std::time_t kFresh = 60;  // seconds: a blob that was asked for is not touched again within this time

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void add(std::string_view bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  std::string hex() {
    unsigned char digest[32];
    EVP_DigestFinal_ex(context_.get(), digest, nullptr);
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (const unsigned char b : digest) {
      out += kDigits[b >> 4];
      out += kDigits[b & 15];
    }
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  explicit operator bool() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_;
};

Error failed(std::string_view what, const std::string& path, int err) {
  const bool full = err == ENOSPC || err == EDQUOT;
  return Error{full ? ErrorClass::storage_full : ErrorClass::io,
               full ? fmt::format("The disk that holds {} is full. Free some space and try again.", path)
                    : fmt::format("Cannot {} {} ({}).", what, path, std::strerror(err)),
               {}};
}

Error not_a_name(const std::string& sha256) {
  return Error{
      ErrorClass::invalid_argument,
      fmt::format("'{}' is not the name of a blob: that is 64 lower-case hex characters.", sha256.substr(0, 80)),
      {}};
}

class FileBlobs final : public BlobStore {
 public:
  explicit FileBlobs(std::string root) : root_(std::move(root)), parts_(root_ + "/parts") {}

  std::optional<Bytes> size(const std::string& sha256) const override {
    if (!is_sha256(sha256)) return std::nullopt;
    const std::lock_guard hold(mutex_);
    return touch(path(sha256));
  }

  std::string path(const std::string& sha256) const override {
    // Whatever the name, the path stays below the root.
    return is_sha256(sha256) ? fmt::format("{}/{}/{}", root_, sha256.substr(0, 2), sha256) : root_ + "/no-such-blob";
  }

  Result<std::string> put(std::string_view bytes) override {
    const std::string sha256 = sha256_hex(bytes);
    if (const auto known = size(sha256); known == bytes.size()) return sha256;
    const std::string temp = fmt::format("{}/put-{}-{}", parts_, ::getpid(), next_.fetch_add(1));
    if (auto written = write_file(temp, bytes); !written) {
      ::unlink(temp.c_str());
      return std::move(written).error();
    }
    if (auto placed = place(temp, sha256); !placed) {
      ::unlink(temp.c_str());
      return std::move(placed).error();
    }
    return sha256;
  }

  Result<std::string> get(const std::string& sha256) const override {
    if (!is_sha256(sha256)) return not_a_name(sha256);
    const std::string name = path(sha256);
    const File file(name, O_RDONLY);
    if (!file) {
      if (errno == ENOENT)
        return Error{ErrorClass::not_found, fmt::format("There is no blob {}. Send it again.", sha256), {}};
      return failed("open", name, errno);
    }
    struct stat st {};
    if (::fstat(file.fd(), &st) != 0) return failed("read", name, errno);
    std::string bytes(static_cast<std::size_t>(st.st_size), '\0');
    std::size_t at = 0;
    while (at < bytes.size()) {
      const ssize_t n = ::read(file.fd(), bytes.data() + at, bytes.size() - at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("read", name, errno);
      if (n == 0) break;
      at += static_cast<std::size_t>(n);
    }
    bytes.resize(at);
    if (sha256_hex(bytes) != sha256) {
      return Error{ErrorClass::storage_damaged,
                   fmt::format("The bytes of blob {} are damaged on disk. Remove {} and send it again.", sha256, name),
                   {}};
    }
    return bytes;
  }

  std::string part_path(const std::string& sha256) const override {
    return is_sha256(sha256) ? fmt::format("{}/{}", parts_, sha256) : root_ + "/no-such-blob";
  }

  Bytes received(const std::string& sha256) const override {
    struct stat st {};
    return ::stat(part_path(sha256).c_str(), &st) == 0 ? static_cast<Bytes>(st.st_size) : 0;
  }

  Result<> finish(const std::string& sha256) override {
    if (!is_sha256(sha256)) return not_a_name(sha256);
    const std::string part = part_path(sha256);
    Sha256 hash;
    {
      const File file(part, O_RDONLY);
      if (!file) {
        const int err = errno;
        if (err == ENOENT && size(sha256)) return {};  // somebody else finished it
        if (err == ENOENT)
          return Error{ErrorClass::not_found, fmt::format("Nothing of blob {} has arrived.", sha256), {}};
        return failed("open", part, err);
      }
      std::vector<char> buffer(256 * KiB);
      for (;;) {
        const ssize_t n = ::read(file.fd(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failed("read", part, errno);
        if (n == 0) break;
        hash.add({buffer.data(), static_cast<std::size_t>(n)});
      }
      if (const std::string is = hash.hex(); is != sha256) {
        ::unlink(part.c_str());
        return Error{
            ErrorClass::invalid_argument,
            fmt::format("What arrived is not blob {}: its SHA-256 is {}. Send it again from the start.", sha256, is),
            {}};
      }
      if (::fsync(file.fd()) != 0) return failed("sync", part, errno);
    }
    return place(part, sha256);
  }

  Result<> remove(const std::string& sha256) override {
    if (!is_sha256(sha256)) return not_a_name(sha256);
    if (::unlink(path(sha256).c_str()) != 0 && errno != ENOENT) return failed("remove", path(sha256), errno);
    return {};
  }

  Result<std::uint64_t> sweep(Millis grace, const std::function<bool(const std::string&)>& in_use) override {
    namespace fs = std::filesystem;
    const std::time_t now = std::time(nullptr);
    const auto old = [&](const std::string& name) {
      struct stat st {};
      return ::stat(name.c_str(), &st) == 0 && (now - st.st_mtime) * 1000 >= grace.count();
    };
    std::uint64_t removed = 0;
    std::error_code error;
    for (fs::directory_iterator folder(root_, error), end; !error && folder != end; folder.increment(error)) {
      if (!folder->is_directory(error)) continue;
      const bool parts = folder->path().filename() == "parts";
      std::vector<std::string> names;
      std::error_code inner;
      for (fs::directory_iterator file(folder->path(), inner); !inner && file != end; file.increment(inner))
        names.push_back(file->path().filename());
      std::sort(names.begin(), names.end());
      for (const std::string& name : names) {
        const std::string whole = folder->path() / name;
        if (!parts && !is_sha256(name)) continue;
        // Under the lock: nobody is told "it is here" between our look and the removal.
        const std::lock_guard hold(mutex_);
        if (!old(whole) || (!parts && in_use(name))) continue;
        if (::unlink(whole.c_str()) == 0 && !parts) ++removed;
      }
    }
    if (error) return Error{ErrorClass::io, fmt::format("Cannot read the folder {} ({}).", root_, error.message()), {}};
    return removed;
  }

 private:
  // Size of a blob that is here. To say "it is here" is a promise that a sweep keeps for its grace: the file becomes
  // young again.
  std::optional<Bytes> touch(const std::string& name) const {
    struct stat st {};
    if (::stat(name.c_str(), &st) != 0) return std::nullopt;
    if (std::time(nullptr) - st.st_mtime > kFresh) ::utimensat(AT_FDCWD, name.c_str(), nullptr, 0);
    return static_cast<Bytes>(st.st_size);
  }

  static Result<> write_file(const std::string& name, std::string_view bytes) {
    const File file(name, O_WRONLY | O_CREAT | O_EXCL);
    if (!file) return failed("make", name, errno);
    while (!bytes.empty()) {
      const ssize_t n = ::write(file.fd(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("write", name, errno);
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    if (::fsync(file.fd()) != 0) return failed("sync", name, errno);
    return {};
  }

  // The bytes are on disk; now their name.
  Result<> place(const std::string& from, const std::string& sha256) {
    const std::string folder = fmt::format("{}/{}", root_, sha256.substr(0, 2));
    const bool fresh = ::mkdir(folder.c_str(), 0700) == 0;
    if (!fresh && errno != EEXIST) return failed("make the folder", folder, errno);
    if (fresh) {
      if (auto synced = sync_folder(root_); !synced) return synced;
    }
    {
      const std::lock_guard hold(mutex_);
      const std::string to = path(sha256);
      if (::rename(from.c_str(), to.c_str()) != 0) {
        const int err = errno;
        if (err == ENOENT && touch(to)) return {};
        return failed("name", to, err);
      }
      ::utimensat(AT_FDCWD, to.c_str(), nullptr, 0);  // an upload that took days is young now
    }
    return sync_folder(folder);
  }

  const std::string root_, parts_;
  std::atomic<std::uint64_t> next_{1};
  mutable std::mutex mutex_;
};

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.hex();
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<std::unique_ptr<BlobStore>> BlobStore::open(const std::string& directory) {
  const std::string root = directory + "/blobs";
  if (auto made = make_folder(root + "/parts"); !made) return std::move(made).error();
  for (const auto& folder : {directory, root}) {
    if (auto synced = sync_folder(folder); !synced) return std::move(synced).error();
  }
  return std::unique_ptr<BlobStore>(std::make_unique<FileBlobs>(root));
}

}  // namespace grange::store
