// What an explanation is put together from. explain.cpp joins it; here stand its two halves: what holds work back
// wherever it would run (explain_waits.cpp), and what each worker lacks (explain_workers.cpp).
#pragma once

#include "core/explain_fit.hpp"

namespace grange::core::explaining {

inline constexpr std::uint32_t kAll = Dependency::kAll;
inline constexpr const char* kFarmPaused = "The whole queue is paused: nothing new starts until it is resumed.";

inline constexpr std::string_view kPinned = "grange.worker";  // the label by which work is for one worker only

struct Ahead {
  std::uint64_t n = 0;
  bool more = false;  // it was not counted to the end
};

Reason reason(std::string code, std::string text, std::uint64_t have = 0, std::uint64_t need = 0, WallMs until = {});
std::string gang_room(std::uint32_t nodes, std::uint32_t could, std::uint32_t now);
std::string closes(const Job* parent);    // how an open job that others wait for gets to its end
std::uint64_t startable(const Job& job);  // tasks that could be handed out, were the job not held back as a whole
bool to_be_frozen(const Task& task);

void wait_for_gates(Farm::State& s, const Job& job, std::uint32_t index, const Task* task, Now now, Explanation& e);
// Of a job none of whose tasks is ready: what each of them waits for.
void wait_for_tasks(const Job& job, const Farm::State& s, Now now, Explanation& e);
void wait_for_deadline(const JobHeader& header, Now now, Explanation& e);
void wait_for_quota(const User& user, const std::string& who, const std::vector<const Request*>& requests,
                    std::uint32_t nodes, Now now, Explanation& e);
// Of alternatives only those within the quota can be had, so long as there is one.
void leave_out_over_quota(const User& user, std::uint32_t nodes, Now now, Demand& demand);
// What came back goes before what was never handed out, that by its number.
Ahead siblings_before(const Job& job, std::uint32_t index, const Task* task);
// Who goes first of what is ready and could take the same room.
void wait_for_turn(Farm::State& s, const Job& job, Ahead siblings, Now now, Explanation& e);

void fill_workers(Farm::State& s, const Demand& demand, std::uint32_t nodes, Now now, Explanation& e);
void wait_for_room(const Explanation& from, std::uint32_t nodes, std::string& summary);

// What to do about a demand that no worker meets: a name that was meant, a command. "", or sentences with a space
// before.
std::string next_step(const Farm::State& s, const Request& r, const Reason& why);

}  // namespace grange::core::explaining
