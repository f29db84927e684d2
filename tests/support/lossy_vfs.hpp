// A disk that loses what was not synced: an SQLite VFS in memory for tests and the simulator. Written bytes stay apart
// from synced ones until xSync; `crash` keeps a random part of them (dropped, reordered, torn at sectors) and kills
// every open handle. I/O errors, a full disk and a power cut can be set to come at the n-th operation. Locks and shared
// memory work, so WAL runs as on a real disk. Nothing of it touches this machine's disk, and one seed is one run.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/prng.hpp"

namespace grange::testing {

enum class Fault : std::uint8_t {
  none,
  io_once,    // the n-th operation fails
  io_always,  // it and all that follow, until clear_fault
  power_off,  // it and all that follow, until crash
};

struct LossyFile;

class LossyDisk {
 public:
  // Registers itself with SQLite under `name`, which must be unique in the process. Seeds SQLite's generator too, which
  // the whole process shares: one disk at a time, where bytes must be the same again.
  LossyDisk(std::string name, std::uint64_t seed);
  ~LossyDisk();
  LossyDisk(const LossyDisk&) = delete;
  LossyDisk& operator=(const LossyDisk&) = delete;

  const std::string& name() const { return name_; }
  // The n-th operation from now on (from 1) meets the fault.
  void fault_at(std::uint64_t n, Fault fault);
  void clear_fault();
  bool fault_met() const;
  void kill();                             // the process dies, the power stays: nothing written is lost
  void set_capacity(std::uint64_t bytes);  // of all files; writes beyond it find the disk full
  std::uint64_t used() const;
  std::uint64_t operations() const;
  void crash();  // power is lost and comes back

  // Bytes as the next open would see them; to look at, to damage, and to start from: a file put on a new disk is there
  // as if it had always been. (A new farm.db that was opened and closed once opens in a third of the time that making
  // it takes.)
  std::string contents(const std::string& path) const;
  void put(const std::string& path, const std::string& bytes);
  void overwrite(const std::string& path, std::uint64_t at, const std::string& bytes);

  // What the VFS calls need.
  int operation();  // SQLITE_OK or the fault
  std::shared_ptr<LossyFile> find(const std::string& path);
  std::shared_ptr<LossyFile> create(const std::string& path);
  void erase(const std::string& path, bool synced);
  bool room_for(std::uint64_t more) const;
  std::uint64_t generation() const { return generation_; }
  Prng& prng() { return prng_; }
  std::recursive_mutex& mutex() { return mutex_; }

 private:
  const std::string name_;
  sqlite3_vfs vfs_{};
  mutable std::recursive_mutex mutex_;
  Prng prng_;
  std::map<std::string, std::shared_ptr<LossyFile>> files_;
  std::map<std::string, std::shared_ptr<LossyFile>> unlinked_;  // deleted, but the folder was not synced: may come back
  std::uint64_t operations_ = 0, fault_at_ = 0, generation_ = 1;
  std::uint64_t capacity_ = UINT64_MAX;
  Fault fault_ = Fault::none;
  bool met_ = false;
};

}  // namespace grange::testing
