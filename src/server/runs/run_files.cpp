#include "server/runs/run_files.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace grange::server {
namespace {

namespace fs = std::filesystem;

void warn(const std::string& what, const std::error_code& error) {
  spdlog::warn("results of runs: {}: {}", what, error.message());
}

bool make(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) warn(folder, error);
  return !error;
}

}  // namespace

bool valid_run_id(std::string_view id) {
  return id.size() >= 8 && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '_';
         });
}

RunFiles::RunFiles(ReaderPool& pool, Post post, std::string folder)
    : pool_(pool), post_(std::move(post)), root_(std::move(folder) + "/results/runs") {}

std::string RunFiles::folder(const std::string& run) const {
  return root_ + "/" + run;
}

void RunFiles::add(const std::string& run, Work work) {
  GRANGE_ASSERT(valid_run_id(run));
  auto& queue = runs_[run];
  queue.push_back(std::move(work));
  if (queue.size() == 1) next(run);
}

void RunFiles::next(const std::string& run) {
  const auto it = runs_.find(run);
  if (it == runs_.end()) return;
  if (it->second.empty()) {
    runs_.erase(it);
    return;
  }
  const bool taken = pool_.run([this, run, work = it->second.front(), post = post_](store::Reader&) {
    work();
    post([this, run] {
      if (const auto at = runs_.find(run); at != runs_.end()) at->second.pop_front();
      next(run);
    });
  });
  if (!taken) {  // too much waits there; what is only for people to read is given up
    spdlog::warn("results of run {}: the server is too busy to write them", run);
    runs_.erase(it);
  }
}

void RunFiles::write(const std::string& run, const char* file, std::string text) {
  add(run, [folder = folder(run), file = std::string(file), text = std::move(text)] {
    if (!make(folder)) return;
    const std::string path = folder + "/" + file;
    {
      std::ofstream out(path + ".new", std::ios::binary | std::ios::trunc);
      out << text;
      if (!out.flush()) return warn(path, std::make_error_code(std::errc::io_error));
    }
    std::error_code error;
    fs::rename(path + ".new", path, error);
    if (error) warn(path, error);
  });
}

void RunFiles::append(const std::string& run, std::string text) {
  add(run, [folder = folder(run), text = std::move(text)] {
    if (!make(folder)) return;
    std::ofstream out(folder + "/events.ndjson", std::ios::binary | std::ios::app);
    out << text;
    if (!out.flush()) warn(folder + "/events.ndjson", std::make_error_code(std::errc::io_error));
  });
}

void RunFiles::remove(const std::string& run) {
  add(run, [folder = folder(run)] {
    std::error_code error;
    fs::remove_all(folder, error);
    if (error) warn(folder, error);
  });
}

void RunFiles::remove_all() {
  pool_.run([root = root_](store::Reader&) {
    std::error_code error;
    fs::remove_all(root, error);
    if (error) warn(root, error);
  });
}

}  // namespace grange::server
