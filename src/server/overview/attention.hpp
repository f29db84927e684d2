// What a person should look at first. A pure rule: what the farm looks like in, words out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "core/explain.hpp"

namespace grange::server {

struct Attention {
  std::string kind;      // no_workers | storage_full | farm_paused | job_waits | worker_quarantined | worker_lost |
                         // dead_letters | job_failed
  std::string severity;  // error | warn | info
  std::string title, text;
  std::string job_id = {}, worker_id = {};  // "": about none
};

struct AttentionLook {
  struct Waiting {
    std::string job_id, name, why;  // why: its explanation's first sentence
    Millis since{};
    bool hopeless = false;  // no worker could ever run it as things are
  };
  struct Failed {
    std::string job_id, name;
    std::uint32_t failed = 0, total = 0;
    Millis ago{};
  };
  struct Worker {
    std::string id, name;
    Millis span{};             // quarantine: still; lost: ago
    std::uint32_t number = 0;  // quarantine: failures in a row; lost: tasks that were taken from it
  };
  std::uint64_t workers = 0, unfinished_tasks = 0;
  bool ever_had_workers = false;
  bool storage_full = false, paused = false;
  std::vector<Waiting> waiting = {};
  std::vector<Failed> failed = {};
  std::vector<Worker> quarantined = {}, lost = {};
  std::uint64_t dead_letters = 0;
  bool more_dead_letters = false;
  std::vector<Attention> alerts = {};  // open ones, of kinds that are not looked at here
};

// Worst first.
std::vector<Attention> attention(const AttentionLook& look);

bool waits_on_purpose(const core::Explanation& why);  // jobs that somebody wants to wait are no news

std::string span_words(Millis span);  // "40 s", "3 min", "2 h"

}  // namespace grange::server
