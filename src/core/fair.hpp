// The books that fairness, quotas and policies are decided by. State calls these where attempts come and go.
#pragma once

#include "core/farm.hpp"

namespace grange::core {
struct Job;
struct Task;
struct Worker;
struct User;
struct Flow;
}  // namespace grange::core

namespace grange::core::fair {

// What a task of this request uses up in one second: cores, or what its memory or GPUs stand for, whichever is most.
double weight_of(const Request& request);

// Virtual time: what was used and what is out, over weight. Who has less is served first.
double tag(const Job& job);
double tag(const Flow& flow);

// An attempt goes out (State::hold, once task.where is HeldBy) or comes back, however (State::leave, while it still
// is). These keep Worker::load, User::load, Job::holds and what is in flight; nobody else touches them.
void hold(Farm::State& s, Job& job, Worker& worker, const Task& task);
void unhold(Farm::State& s, Job& job, Worker& worker, const Task& task);

// Before work is handed out: who has nothing out is lifted to where the others are, so that idling earns nothing.
void lift(Farm::State& s, Job& job);

// An attempt ended with a report of its own: its time is charged, and its kind, worker and policy are measured.
// Before leave(). An attempt that was given back without having started needs no charge.
void charge_end(Farm::State& s, Job& job, Worker& worker, const Task& task, bool ok, std::uint64_t run_us);
// What counted against his starts a minute was asked back before it started.
void unstart(User& user, Now now);
// An attempt was lost, preempted or cancelled while it ran: its time since the start is charged. Before leave().
void charge_lost(Farm::State& s, Job& job, const Task& task, Now now);

}  // namespace grange::core::fair
