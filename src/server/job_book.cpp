#include "server/job_book.hpp"

#include "base/limits.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {
constexpr std::size_t kJobsKept = 50'000;
constexpr std::size_t kKeptBytes = 64 * MiB;
constexpr std::size_t kGrown = 10'000;
}  // namespace

Error no_such_job(const std::string& ref) {
  return Error{ErrorClass::not_found,
               "There is no job \"" + ref.substr(0, limits::kNameBytes) + "\". List them with: grange jobs"};
}

Result<JobNo> read_ref(store::Reader& reader, const std::string& ref) {
  if (ref.empty() || ref.size() > limits::kNameBytes) return no_such_job(ref);
  if (const auto number = to_number(ref)) {
    if (*number == 0 || *number > UINT32_MAX) return no_such_job(ref);
    return JobNo{static_cast<std::uint32_t>(*number)};
  }
  auto found = reader.find_job(ref);
  if (!found) return std::move(found).error();
  if (!found->has_value()) return no_such_job(ref);
  return **found;
}

Result<JobMetaPtr> read_meta(store::Reader& reader, JobNo job, const std::string& ref) {
  auto row = reader.job(job);
  if (!row) return std::move(row).error();
  if (!row->has_value()) return no_such_job(ref.empty() ? std::to_string(job.value) : ref);
  auto bytes = reader.spec(job);
  if (!bytes) return std::move(bytes).error();
  auto spec = std::make_shared<::grange::v1::JobSpec>();
  if (!spec->ParseFromString(*bytes)) {
    return Error{ErrorClass::storage_damaged,
                 "The spec of job " + std::to_string(job.value) + " cannot be read from the store."};
  }
  const store::JobRow& r = **row;
  return JobMetaPtr(std::make_shared<JobMeta>(JobMeta{.job = job,
                                                      .id = r.id.empty() ? std::to_string(job.value) : r.id,
                                                      .name = r.name,
                                                      .user = r.user,
                                                      .engine = r.engine,
                                                      .count = r.count,
                                                      .spec = spec,
                                                      .bytes = bytes->size()}));
}

void JobBook::put(JobMetaPtr meta) {
  const JobNo job = meta->job;
  if (known_.contains(job)) return;
  if (const auto grown = grown_.find(job); grown != grown_.end() && grown->second > meta->count) {
    auto newer = std::make_shared<JobMeta>(*meta);
    newer->count = grown->second;
    meta = std::move(newer);
  }
  recent_.push_front(job);
  bytes_ += meta->bytes + 512;
  by_id_[meta->id] = job;
  known_.emplace(job, Entry{std::move(meta), recent_.begin()});
  trim();
}

void JobBook::grew(JobNo job, std::uint32_t count) {
  grown_[job] = count;
  if (grown_.size() > kGrown) grown_.erase(grown_.begin());
  const auto it = known_.find(job);
  if (it == known_.end() || it->second.meta->count >= count) return;
  auto meta = std::make_shared<JobMeta>(*it->second.meta);
  meta->count = count;
  it->second.meta = std::move(meta);
}

void JobBook::trim() {
  while (recent_.size() > 1 && (recent_.size() > kJobsKept || bytes_ > kKeptBytes)) {
    const auto it = known_.find(recent_.back());
    bytes_ -= it->second.meta->bytes + 512;
    by_id_.erase(it->second.meta->id);
    known_.erase(it);
    recent_.pop_back();
  }
}

void JobBook::forget_all() {
  known_.clear();
  grown_.clear();
  by_id_.clear();
  recent_.clear();
  bytes_ = 0;
}

JobMetaPtr JobBook::keep(JobMetaPtr meta) {
  const JobNo job = meta->job;
  put(meta);
  const JobMetaPtr kept = find(job);
  return kept == nullptr ? meta : kept;
}

JobMetaPtr JobBook::find(JobNo job) {
  const auto it = known_.find(job);
  if (it == known_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, it->second.place);
  return it->second.meta;
}

JobMetaPtr JobBook::find(const std::string& ref) {
  if (const auto it = by_id_.find(ref); it != by_id_.end()) return find(it->second);
  const auto number = to_number(ref);
  return number && *number <= UINT32_MAX ? find(JobNo{static_cast<std::uint32_t>(*number)}) : nullptr;
}

void JobBook::with(JobNo job, Done done) {
  // Behind those who wait already, so that a job's news stays in order.
  if (const auto it = waiting_.find(job); it != waiting_.end()) {
    it->second.push_back(std::move(done));
    return;
  }
  if (JobMetaPtr meta = find(job)) return done(std::move(meta));
  waiting_[job].push_back(std::move(done));
  readers_.read<JobMetaPtr>([job](store::Reader& reader) { return read_meta(reader, job, ""); },
                            [this, job](Result<JobMetaPtr> result) {
                              if (result) result = keep(std::move(*result));
                              const auto it = waiting_.find(job);
                              // A callback may ask again: it then finds the meta, and must not find this list.
                              const auto calls = std::move(it->second);
                              waiting_.erase(it);
                              for (const Done& call : calls) call(result);
                            });
}

void JobBook::resolve(const std::string& ref, Done done) {
  if (JobMetaPtr meta = find(ref)) return done(std::move(meta));
  readers_.read<JobMetaPtr>(
      [ref](store::Reader& reader) -> Result<JobMetaPtr> {
        auto job = read_ref(reader, ref);
        if (!job) return std::move(job).error();
        return read_meta(reader, *job, ref);
      },
      [this, done = std::move(done)](Result<JobMetaPtr> result) {
        if (result) result = keep(std::move(*result));
        done(std::move(result));
      });
}

}  // namespace grange::server
