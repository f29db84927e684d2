// What the Loop knows of jobs without asking the disk: number -> id and spec. Filled by submits and by the store on
// demand.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "grange/v1/wire.pb.h"
#include "server/reader_pool.hpp"

namespace grange::server {

struct JobMeta {
  JobNo job;
  std::string id, name, user, engine;
  std::uint32_t count = 0;
  std::shared_ptr<const ::grange::v1::JobSpec> spec;
  std::size_t bytes = 0;
};
using JobMetaPtr = std::shared_ptr<const JobMeta>;

class JobBook {
 public:
  using Done = std::function<void(Result<JobMetaPtr>)>;
  explicit JobBook(ReaderPool& readers) : readers_(readers) {}

  void put(JobMetaPtr meta);
  void grew(JobNo job, std::uint32_t count);  // tasks were added
  JobMetaPtr find(JobNo job);                 // null: not in memory
  JobMetaPtr find(const std::string& ref);    // by id or number, in memory only
  // At once when it is in memory, else once it was read. Calls for one job are answered in order.
  void with(JobNo job, Done done);
  // By number ("7") or by the client's own id. not_found names it.
  void resolve(const std::string& ref, Done done);
  void forget_all();

 private:
  struct Entry {
    JobMetaPtr meta;
    std::list<JobNo>::iterator place;
  };
  JobMetaPtr keep(JobMetaPtr meta);
  void trim();
  ReaderPool& readers_;
  std::unordered_map<JobNo, Entry> known_;
  std::unordered_map<std::string, JobNo> by_id_;
  std::list<JobNo> recent_;  // newest first
  std::size_t bytes_ = 0;
  std::unordered_map<JobNo, std::vector<Done>> waiting_;
  std::map<JobNo, std::uint32_t> grown_;  // what was read may be older than what was heard
};

Error no_such_job(const std::string& ref);
// On a reader's thread.
Result<JobMetaPtr> read_meta(store::Reader& reader, JobNo job, const std::string& ref);
// A reference as people write it to a job's number.
Result<JobNo> read_ref(store::Reader& reader, const std::string& ref);

}  // namespace grange::server
