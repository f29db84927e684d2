// results/runs/<run_id>/ in the data folder: metadata.json, events.ndjson, summary.json. For people and their tools;
// the server's own truth is the store.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>

#include "server/reader_pool.hpp"

namespace grange::server {

class RunFiles {
 public:
  // folder: the data folder. All work is done on `pool`, one piece at a time of each run, in order.
  RunFiles(ReaderPool& pool, Post post, std::string folder);

  void write(const std::string& run, const char* file, std::string text);  // replaces it at once
  void append(const std::string& run, std::string text);                   // to events.ndjson
  void remove(const std::string& run);
  void remove_all();
  std::string folder(const std::string& run) const;
  bool busy(const std::string& run) const { return runs_.contains(run); }

 private:
  using Work = std::function<void()>;
  void add(const std::string& run, Work work);
  void next(const std::string& run);

  ReaderPool& pool_;
  Post post_;
  std::string root_;
  std::map<std::string, std::deque<Work>> runs_;  // the first is under way
};

// "2024-01-15_143022_abc123": what may stand in a path.
bool valid_run_id(std::string_view id);

}  // namespace grange::server
