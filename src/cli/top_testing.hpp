// A server that answers from tables, for the tests of `grange top`.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <functional>

#include "cli/top_model.hpp"

namespace grange::cli::top::testing {

inline constexpr Clock kStart{100'000, 1'767'225'600'000};  // 2026-01-01T00:00:00Z

inline Clock later(std::int64_t ms) {
  return {kStart.mono_ms + ms, kStart.wall_ms + ms};
}

inline json::object a_job(int number, const char* name, const char* status, int total = 10, int done = 0) {
  const std::string state = status;
  return {{"id", std::to_string(number)},
          {"job", number},
          {"name", name},
          {"status", status},
          {"user", "ann"},
          {"engine", "command"},
          {"priority", 0},
          {"total_tasks", total},
          {"completed_tasks", done},
          {"failed_tasks", state == "failed" ? 1 : 0},
          {"cancelled_tasks", 0},
          {"running_tasks", state == "running" ? 2 : 0},
          {"assigned_tasks", 0},
          {"pending_tasks", state == "pending" ? total : 0},
          {"blocked_tasks", 0},
          {"paused_tasks", 0},
          {"paused", false},
          {"open", false},
          {"created_at", "2025-12-31T23:59:00.000Z"},
          {"started_at", nullptr},
          {"completed_at", nullptr}};
}

inline json::object a_worker(const char* id, const char* name, const char* status = "online") {
  const bool there = std::string(status) != "offline";
  return {{"id", id},
          {"name", name},
          {"status", status},
          {"hostname", "host"},
          {"slots", 4},
          {"running", 1},
          {"backlog", 0},
          {"cpus", 4},
          {"memory_bytes", 8589934592},
          {"connected", there},
          {"cpu_percent", there ? json::value(50) : json::value(nullptr)},
          {"memory_used_bytes", there ? json::value(4294967296) : json::value(nullptr)},
          {"gpus", json::array()},
          {"engines", json::array{"command"}},
          {"labels", json::object{{"room", "a"}}},
          {"last_seen", "2026-01-01T00:00:00.000Z"},
          {"tasks_completed", 3},
          {"tasks_failed", 0}};
}

inline json::object some_stats(double uptime = 10, int completed = 100) {
  return {{"total_jobs", 3},
          {"pending_jobs", 2},
          {"connected_workers", 2},
          {"queued_tasks", 7},
          {"running_tasks", 2},
          {"blocked_tasks", 0},
          {"paused", false},
          {"total_tasks_failed", 0},
          {"total_tasks_completed", completed},
          {"slots", 8},
          {"version", "0.1.0"},
          {"uptime_seconds", uptime},
          {"policy", "fair_share"},
          {"storage_full", false}};
}

// A server: what it answers by path; what was asked.
struct Server {
  std::map<std::string, std::function<Answer(const Ask&)>> at;
  json::array jobs{a_job(3, "gamma", "pending"), a_job(2, "beta", "running", 10, 4),
                   a_job(1, "alpha", "completed", 5, 5)};
  json::array workers{a_worker("w-1", "anvil"), a_worker("w-2", "bellows", "busy"),
                      a_worker("w-3", "crane", "offline")};
  json::object stats = some_stats();
  std::vector<std::string> asked;

  Answer answer(const Ask& ask) {
    asked.push_back((ask.method == "GET" ? "" : ask.method + " ") + ask.path);
    const auto ok = [&](const json::value& body) { return Answer{ask.id, 200, json::serialize(body)}; };
    for (const auto& [path, say] : at)
      if (ask.path.starts_with(path)) return say(ask);
    if (ask.method == "POST") return ok(json::object{});
    if (ask.path == "/api/stats") return ok(stats);
    if (ask.path.starts_with("/api/jobs?state=")) {
      json::array some;
      for (const json::value& job : jobs)
        if (ask.path.find("=" + str(job, "status") + "&") != std::string::npos) some.push_back(job);
      return ok(some);
    }
    if (ask.path.starts_with("/api/jobs?")) return ok(jobs);
    if (ask.path == "/api/workers") return ok(workers);
    for (const json::value& job : jobs) {
      const std::string path = "/api/jobs/" + str(job, "id");
      if (ask.path == path) return ok(job);
      if (ask.path.starts_with(path + "/tasks") || ask.path.starts_with(path + "/logs")) return ok(json::array());
      if (ask.path == path + "/explain") return ok(json::object{{"summary", ""}});
    }
    return {ask.id, 404, R"({"error":{"code":"not_found","message":"There is nothing here."}})"};
  }
  // Until nothing more is asked.
  void serve(State& state, Clock now) {
    for (int round = 0; round < 200; ++round) {
      const std::vector<Ask> some = asks(state, now);
      if (some.empty()) return;
      for (const Ask& ask : some) hear(state, answer(ask), now);
    }
    FAIL() << "it asks without an end";
  }
};

inline std::string frame_text(const State& state, Clock now = kStart) {
  const Frame frame = draw(state, now);
  std::string out;
  for (int y = 0; y < frame.height(); ++y) out += frame.line(y) + "\n";
  return out;
}

inline bool shows(const State& state, std::string_view what, Clock now = kStart) {
  return frame_text(state, now).find(what) != std::string::npos;
}

inline void type(State& state, std::string_view keys, Clock now = kStart) {
  for (const char c : keys) {
    if (c == '\n')
      press(state, {Key::enter}, now);
    else if (c == '\x1b')
      press(state, {Key::escape}, now);
    else if (c == '\t')
      press(state, {Key::tab}, now);
    else
      press(state, {Key::character, static_cast<char32_t>(c)}, now);
  }
}

inline std::vector<std::string> names_shown(const State& state, Clock now = kStart) {
  std::vector<std::string> out;
  if (state.tab == Tab::workers)
    for (const Worker* worker : shown_workers(state, now)) out.push_back(worker->name);
  else
    for (const Job* job : shown_jobs(state, now)) out.push_back(job->name);
  return out;
}

struct TopModel : ::testing::Test {
  Server server;
  State state = start("http://farm:8000", 1000, true);
  void SetUp() override { server.serve(state, kStart); }
  std::vector<std::string> asked_of(std::string_view part) {
    std::vector<std::string> out;
    for (const std::string& one : server.asked)
      if (one.find(part) != std::string::npos) out.push_back(one);
    return out;
  }
};

using Names = std::vector<std::string>;

}  // namespace grange::cli::top::testing
