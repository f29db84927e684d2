#include "support/lossy_vfs.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/assert.hpp"

namespace grange::testing {
namespace {

constexpr std::size_t kSector = 512;

void write_into(std::string& image, std::uint64_t at, std::string_view bytes) {
  if (image.size() < at + bytes.size()) image.resize(at + bytes.size());
  image.replace(at, bytes.size(), bytes);
}

struct Shared {  // the memory that SQLite's connections share beside a WAL
  std::vector<std::unique_ptr<char[]>> regions;
  int users = 0;
  struct Slot {
    int shared = 0;
    bool exclusive = false;
  };
  Slot slots[SQLITE_SHM_NLOCK];
};

}  // namespace

struct LossyFile {
  struct Change {
    bool truncate = false;
    std::uint64_t at = 0;  // or the new size
    std::string bytes;
  };
  std::string live, durable;
  std::vector<Change> pending;
  bool named = false;  // its name is on disk
  int shared = 0;
  const void* reserved = nullptr;
  const void* pending_lock = nullptr;
  const void* exclusive = nullptr;
  std::shared_ptr<Shared> shm;

  // What a power loss leaves.
  void lose(Prng& prng) {
    std::string image = durable;
    const auto mode = prng.below(4);  // nothing, all, a torn prefix, a random torn subset
    const std::uint64_t prefix = prng.below(pending.size() + 1);
    for (std::size_t i = 0; i < pending.size(); ++i) {
      const Change& change = pending[i];
      const bool torn = (mode == 2 && i == prefix) || (mode == 3 && prng.below(3) == 0);
      const bool kept = mode == 1 || (mode == 2 && i < prefix) || (mode == 3 && prng.below(2) == 0);
      if (!kept && !torn) continue;
      if (change.truncate) {
        if (kept) image.resize(change.at);
        continue;
      }
      for (std::uint64_t at = 0; at < change.bytes.size();) {
        const std::uint64_t size =
            std::min<std::uint64_t>(kSector - (change.at + at) % kSector, change.bytes.size() - at);
        if (!torn || prng.below(2) == 0)
          write_into(image, change.at + at, std::string_view(change.bytes).substr(at, size));
        at += size;
      }
    }
    live = durable = std::move(image);
    pending.clear();
    named = true;
    shared = 0;
    reserved = pending_lock = exclusive = nullptr;
    shm.reset();
  }
};

namespace {

struct Handle {
  Handle(LossyDisk* on, std::shared_ptr<LossyFile> of_file, std::uint64_t born, std::string name)
      : disk(on), file(std::move(of_file)), generation(born), path(std::move(name)) {}
  LossyDisk* disk;
  std::shared_ptr<LossyFile> file;
  std::uint64_t generation;
  std::string path;
  bool delete_on_close = false;
  int level = SQLITE_LOCK_NONE;
  std::shared_ptr<Shared> shm;
  unsigned shm_shared = 0, shm_exclusive = 0;

  bool dead() const { return generation != disk->generation(); }
  int begin() const { return dead() ? SQLITE_IOERR : disk->operation(); }
};

struct SqliteFile {
  sqlite3_file base;
  Handle* handle;
};

Handle& of(sqlite3_file* f) {
  return *reinterpret_cast<SqliteFile*>(f)->handle;
}
#define GRANGE_HOLD(h) const std::lock_guard hold((h).disk->mutex())

int shm_unmap(sqlite3_file* f, int delete_it);
int unlock(sqlite3_file* f, int level);

int close_file(sqlite3_file* f) {
  Handle* h = &of(f);
  {
    GRANGE_HOLD(*h);
    unlock(f, SQLITE_LOCK_NONE);
    shm_unmap(f, 0);
    if (h->delete_on_close && !h->dead()) h->disk->erase(h->path, false);
  }
  delete h;
  return SQLITE_OK;
}

int read_file(sqlite3_file* f, void* out, int amount, sqlite3_int64 at) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  if (h.begin() != SQLITE_OK) return SQLITE_IOERR_READ;
  const auto size = static_cast<sqlite3_int64>(h.file->live.size());
  const auto wanted = static_cast<std::size_t>(std::max(amount, 0));
  const auto n = std::min(wanted, static_cast<std::size_t>(std::max<sqlite3_int64>(size - at, 0)));
  if (n != 0) std::memcpy(out, h.file->live.data() + at, n);
  if (n == wanted) return SQLITE_OK;
  std::memset(static_cast<char*>(out) + n, 0, wanted - n);
  return SQLITE_IOERR_SHORT_READ;
}

int write_file(sqlite3_file* f, const void* bytes, int amount, sqlite3_int64 at) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  const std::string_view data(static_cast<const char*>(bytes), static_cast<std::size_t>(amount));
  const auto offset = static_cast<std::uint64_t>(at);
  const std::uint64_t end = offset + data.size();
  if (const int rc = h.begin(); rc != SQLITE_OK) {
    // The write that the power cut met may have been on its way.
    if (!h.dead())
      h.file->pending.push_back({false, offset, std::string(data.substr(0, h.disk->prng().below(data.size() + 1)))});
    return SQLITE_IOERR_WRITE;
  }
  if (end > h.file->live.size() && !h.disk->room_for(end - h.file->live.size())) return SQLITE_FULL;
  write_into(h.file->live, offset, data);
  h.file->pending.push_back({false, offset, std::string(data)});
  return SQLITE_OK;
}

int truncate_file(sqlite3_file* f, sqlite3_int64 size) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  if (h.begin() != SQLITE_OK) return SQLITE_IOERR_TRUNCATE;
  h.file->live.resize(static_cast<std::size_t>(size));
  h.file->pending.push_back({true, static_cast<std::uint64_t>(size), {}});
  return SQLITE_OK;
}

int sync_file(sqlite3_file* f, int) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  if (h.begin() != SQLITE_OK) return SQLITE_IOERR_FSYNC;
  // Replayed, not copied: a sync costs what was written, not the size of the file.
  for (const auto& change : h.file->pending) {
    change.truncate ? h.file->durable.resize(change.at) : write_into(h.file->durable, change.at, change.bytes);
  }
  h.file->pending.clear();
  h.file->named = true;
  return SQLITE_OK;
}

int file_size(sqlite3_file* f, sqlite3_int64* size) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  *size = static_cast<sqlite3_int64>(h.file->live.size());
  return h.dead() ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

int lock(sqlite3_file* f, int level) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  LossyFile& file = *h.file;
  if (h.dead()) return SQLITE_IOERR_LOCK;
  if (h.level >= level) return SQLITE_OK;
  if (h.level == SQLITE_LOCK_NONE) {
    if (file.exclusive != nullptr || file.pending_lock != nullptr) return SQLITE_BUSY;
    ++file.shared;
    h.level = SQLITE_LOCK_SHARED;
  }
  if (level >= SQLITE_LOCK_RESERVED && h.level < SQLITE_LOCK_RESERVED) {
    if (file.reserved != nullptr) return SQLITE_BUSY;
    file.reserved = &h;
    h.level = SQLITE_LOCK_RESERVED;
  }
  if (level == SQLITE_LOCK_EXCLUSIVE) {
    file.pending_lock = &h;
    h.level = SQLITE_LOCK_PENDING;
    if (file.shared > 1) return SQLITE_BUSY;
    file.exclusive = &h;
    h.level = SQLITE_LOCK_EXCLUSIVE;
  }
  return SQLITE_OK;
}

int unlock(sqlite3_file* f, int level) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  if (h.dead() || h.level <= level) return SQLITE_OK;
  LossyFile& file = *h.file;
  if (file.exclusive == &h) file.exclusive = nullptr;
  if (file.pending_lock == &h) file.pending_lock = nullptr;
  if (file.reserved == &h) file.reserved = nullptr;
  if (level == SQLITE_LOCK_NONE) --file.shared;
  h.level = level;
  return SQLITE_OK;
}

int check_reserved(sqlite3_file* f, int* held) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  *held = h.file->reserved != nullptr ? 1 : 0;
  return SQLITE_OK;
}

int control(sqlite3_file*, int, void*) {
  return SQLITE_NOTFOUND;
}
int sector_size(sqlite3_file*) {
  return 4096;
}
// As SQLite says of a real disk: a torn write harms only the bytes that were written.
int characteristics(sqlite3_file*) {
  return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

int shm_map(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  *out = nullptr;
  if (h.dead()) return SQLITE_IOERR_SHMMAP;
  if (!h.shm) {
    if (!h.file->shm) h.file->shm = std::make_shared<Shared>();
    h.shm = h.file->shm;
    ++h.shm->users;
  }
  const auto wanted = static_cast<std::size_t>(region);
  if (h.shm->regions.size() <= wanted) {
    if (extend == 0) return SQLITE_OK;
    while (h.shm->regions.size() <= wanted)
      h.shm->regions.push_back(std::make_unique<char[]>(static_cast<std::size_t>(size)));
  }
  *out = h.shm->regions[wanted].get();
  return SQLITE_OK;
}

int shm_lock(sqlite3_file* f, int first, int n, int flags) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  if (h.dead() || !h.shm) return SQLITE_IOERR_SHMLOCK;
  for (int pass = 0; pass < 2; ++pass) {  // look, then take
    for (int i = first; i < first + n; ++i) {
      Shared::Slot& slot = h.shm->slots[i];
      const unsigned bit = 1u << i;
      if ((flags & SQLITE_SHM_UNLOCK) != 0) {
        if (pass == 0) continue;
        if ((h.shm_shared & bit) != 0) --slot.shared;
        if ((h.shm_exclusive & bit) != 0) slot.exclusive = false;
        h.shm_shared &= ~bit;
        h.shm_exclusive &= ~bit;
      } else if ((flags & SQLITE_SHM_SHARED) != 0) {
        if ((h.shm_shared & bit) != 0) continue;
        if (slot.exclusive) return SQLITE_BUSY;
        if (pass == 0) continue;
        ++slot.shared;
        h.shm_shared |= bit;
      } else {
        if ((h.shm_exclusive & bit) != 0) continue;
        if (slot.exclusive || slot.shared > ((h.shm_shared & bit) != 0 ? 1 : 0)) return SQLITE_BUSY;
        if (pass == 0) continue;
        slot.exclusive = true;
        h.shm_exclusive |= bit;
      }
    }
  }
  return SQLITE_OK;
}

void shm_barrier(sqlite3_file*) {}

int shm_unmap(sqlite3_file* f, int) {
  Handle& h = of(f);
  GRANGE_HOLD(h);
  if (!h.shm) return SQLITE_OK;
  for (int i = 0; i < SQLITE_SHM_NLOCK; ++i) {
    const unsigned bit = 1u << i;
    if ((h.shm_shared & bit) != 0) --h.shm->slots[i].shared;
    if ((h.shm_exclusive & bit) != 0) h.shm->slots[i].exclusive = false;
  }
  h.shm_shared = h.shm_exclusive = 0;
  if (--h.shm->users == 0 && h.file->shm == h.shm) h.file->shm.reset();
  h.shm.reset();
  return SQLITE_OK;
}

constexpr sqlite3_io_methods kMethods = {
    2,        close_file,  read_file,      write_file, truncate_file, sync_file,       file_size,
    lock,     unlock,      check_reserved, control,    sector_size,   characteristics, shm_map,
    shm_lock, shm_barrier, shm_unmap,      nullptr,    nullptr};

LossyDisk& disk_of(sqlite3_vfs* vfs) {
  return *static_cast<LossyDisk*>(vfs->pAppData);
}

int open_file(sqlite3_vfs* vfs, const char* name, sqlite3_file* f, int flags, int* out_flags) {
  LossyDisk& disk = disk_of(vfs);
  const std::lock_guard hold(disk.mutex());
  f->pMethods = nullptr;
  if (disk.operation() != SQLITE_OK) return SQLITE_CANTOPEN;
  const std::string path = name != nullptr ? name : "";
  std::shared_ptr<LossyFile> file = path.empty() ? std::make_shared<LossyFile>() : disk.find(path);
  if (!file) {
    if ((flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
    file = disk.create(path);
  }
  auto* handle = new Handle(&disk, std::move(file), disk.generation(), path);
  handle->delete_on_close = !path.empty() && (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
  reinterpret_cast<SqliteFile*>(f)->handle = handle;
  f->pMethods = &kMethods;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int delete_file(sqlite3_vfs* vfs, const char* name, int sync) {
  LossyDisk& disk = disk_of(vfs);
  const std::lock_guard hold(disk.mutex());
  if (disk.operation() != SQLITE_OK) return SQLITE_IOERR_DELETE;
  if (!disk.find(name)) return SQLITE_IOERR_DELETE_NOENT;
  disk.erase(name, sync != 0);
  return SQLITE_OK;
}

int access_file(sqlite3_vfs* vfs, const char* name, int flags, int* out) {
  LossyDisk& disk = disk_of(vfs);
  const std::lock_guard hold(disk.mutex());
  if (disk.operation() != SQLITE_OK) return SQLITE_IOERR_ACCESS;
  const auto file = disk.find(name);
  *out = file && (flags != SQLITE_ACCESS_EXISTS || !file->live.empty()) ? 1 : 0;
  return SQLITE_OK;
}

int full_path(sqlite3_vfs*, const char* name, int size, char* out) {
  sqlite3_snprintf(size, out, "%s", name);
  return SQLITE_OK;
}

int randomness(sqlite3_vfs* vfs, int n, char* out) {
  LossyDisk& disk = disk_of(vfs);
  const std::lock_guard hold(disk.mutex());
  for (int i = 0; i < n; ++i) out[i] = static_cast<char>(disk.prng().below(256));
  return n;
}

int nap(sqlite3_vfs*, int us) {
  return us;
}
int time_now(sqlite3_vfs*, double* out) {
  *out = 2460000.5;
  return SQLITE_OK;
}
int last_error(sqlite3_vfs*, int, char*) {
  return 0;
}

}  // namespace

LossyDisk::LossyDisk(std::string name, std::uint64_t seed) : name_(std::move(name)), prng_(seed) {
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(SqliteFile);
  vfs_.mxPathname = 1024;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = open_file;
  vfs_.xDelete = delete_file;
  vfs_.xAccess = access_file;
  vfs_.xFullPathname = full_path;
  vfs_.xRandomness = randomness;
  vfs_.xSleep = nap;
  vfs_.xCurrentTime = time_now;
  vfs_.xGetLastError = last_error;
  GRANGE_ASSERT(sqlite3_vfs_register(&vfs_, 0) == SQLITE_OK);
  // The salts of a WAL come from it.
  const int salt = static_cast<int>(prng_.below(INT32_MAX)) + 1;
  GRANGE_ASSERT(sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, salt, static_cast<sqlite3*>(nullptr)) == SQLITE_OK);
  sqlite3_randomness(0, nullptr);
}

LossyDisk::~LossyDisk() {
  sqlite3_vfs_unregister(&vfs_);
}

void LossyDisk::fault_at(std::uint64_t n, Fault fault) {
  const std::lock_guard hold(mutex_);
  fault_at_ = operations_ + n;
  fault_ = fault;
  met_ = false;
}

void LossyDisk::clear_fault() {
  const std::lock_guard hold(mutex_);
  fault_ = Fault::none;
}

bool LossyDisk::fault_met() const {
  const std::lock_guard hold(mutex_);
  return met_;
}

void LossyDisk::set_capacity(std::uint64_t bytes) {
  const std::lock_guard hold(mutex_);
  capacity_ = bytes;
}

std::uint64_t LossyDisk::used() const {
  const std::lock_guard hold(mutex_);
  std::uint64_t sum = 0;
  for (const auto& [path, file] : files_) sum += file->live.size();
  return sum;
}

std::uint64_t LossyDisk::operations() const {
  const std::lock_guard hold(mutex_);
  return operations_;
}

int LossyDisk::operation() {
  ++operations_;
  if (fault_ == Fault::none || operations_ < fault_at_) return SQLITE_OK;
  if (fault_ == Fault::io_once && operations_ > fault_at_) return SQLITE_OK;
  met_ = true;
  return SQLITE_IOERR;
}

std::shared_ptr<LossyFile> LossyDisk::find(const std::string& path) {
  const auto it = files_.find(path);
  return it != files_.end() ? it->second : nullptr;
}

std::shared_ptr<LossyFile> LossyDisk::create(const std::string& path) {
  return files_[path] = std::make_shared<LossyFile>();
}

void LossyDisk::erase(const std::string& path, bool synced) {
  const auto it = files_.find(path);
  if (it == files_.end()) return;
  if (synced) {
    unlinked_.erase(path);
  } else if (it->second->named) {
    unlinked_[path] = it->second;
  }
  files_.erase(it);
}

bool LossyDisk::room_for(std::uint64_t more) const {
  if (capacity_ == UINT64_MAX) return true;
  const std::uint64_t taken = used();
  return taken <= capacity_ && more <= capacity_ - taken;
}

void LossyDisk::crash() {
  const std::lock_guard hold(mutex_);
  ++generation_;
  for (auto it = files_.begin(); it != files_.end();) {
    if (!it->second->named && prng_.below(2) == 0) {
      it = files_.erase(it);
      continue;
    }
    // A copy: handles that died still point at the old one.
    auto survivor = std::make_shared<LossyFile>();
    survivor->durable = it->second->durable;
    survivor->pending = it->second->pending;
    survivor->lose(prng_);
    it->second = std::move(survivor);
    ++it;
  }
  for (auto& [path, file] : unlinked_) {
    if (files_.contains(path) || prng_.below(2) == 0) continue;
    auto back = std::make_shared<LossyFile>();
    back->durable = file->durable;
    back->pending = file->pending;
    back->lose(prng_);
    files_[path] = std::move(back);
  }
  unlinked_.clear();
  fault_ = Fault::none;
  met_ = false;
}

void LossyDisk::kill() {
  const std::lock_guard hold(mutex_);
  ++generation_;
  for (auto& [path, file] : files_) {
    // A copy without locks: handles that died still point at the old one.
    auto survivor = std::make_shared<LossyFile>();
    survivor->live = file->live;
    survivor->durable = file->durable;
    survivor->pending = file->pending;
    survivor->named = file->named;
    file = std::move(survivor);
  }
  fault_ = Fault::none;
  met_ = false;
}

std::string LossyDisk::contents(const std::string& path) const {
  const std::lock_guard hold(mutex_);
  const auto it = files_.find(path);
  return it != files_.end() ? it->second->live : std::string();
}

void LossyDisk::put(const std::string& path, const std::string& bytes) {
  const std::lock_guard hold(mutex_);
  const auto file = create(path);
  file->live = file->durable = bytes;
  file->named = true;
}

void LossyDisk::overwrite(const std::string& path, std::uint64_t at, const std::string& bytes) {
  const std::lock_guard hold(mutex_);
  const auto it = files_.find(path);
  GRANGE_ASSERT(it != files_.end());
  write_into(it->second->live, at, bytes);
  write_into(it->second->durable, at, bytes);
}

}  // namespace grange::testing
