// New work: one job, a graph of them, more tasks for a job. Nothing is kept before all of it was looked at.
#include <algorithm>
#include <map>

#include "base/mark.hpp"
#include "base/mutant.hpp"
#include "queue/turn_impl.hpp"

namespace grange::queue {
namespace {

Error conflict(std::string_view what, const std::string& name) {
  return {ErrorClass::conflict,
          "A job with the " + std::string(what) + " '" + name +
              "' exists and is not the same. Choose another, or leave it out.",
          {}};
}

bool of_tasks(const core::Dependency& d) {
  return d.each || d.index != core::Dependency::kAll;
}

// Would the dependency wait for a task that its parent, of `count` tasks, does not have?
Result<> check_reach(const core::Dependency& d, std::uint32_t child_count, std::uint32_t count,
                     const std::string& parent) {
  const auto has = parent + " has " + std::to_string(count) + " tasks";
  if (d.each) {
    if (child_count <= count) return {};
    return Error{ErrorClass::invalid_argument,
                 "Each task waits for the one of the same index, but " + has + " and this job " +
                     std::to_string(child_count) + ".",
                 {}};
  }
  if (d.index == core::Dependency::kAll || d.index < count) return {};
  return Error{ErrorClass::invalid_argument,
               "It waits for task " + std::to_string(d.index) + ", but " + has + ", counted from 0.",
               {}};
}

}  // namespace

// How the jobs stand that new ones wait for.
struct Turn::Impl::Parents {
  struct Standing {
    bool live = false, open = false;
    core::JobState state{};
    core::JobCounts counts;
    std::uint32_t count = 0;
    bool bad() const { return counts.failed + counts.cancelled > 0; }
  };

  Parents(Impl& impl, std::optional<JobNo> first_sibling) : t(impl), first(first_sibling) {}

  // Must what happened so far be on disk before `facts` can tell? Where single tasks of a parent count, the store says
  // which ended badly.
  bool wants_flush(const core::JobHeader& header) const {
    return std::any_of(header.after.begin(), header.after.end(), [&](const core::Dependency& d) {
      if (const auto view = t.farm->job(d.job)) {
        return ended(view->state) || (of_tasks(d) && view->counts.failed + view->counts.cancelled > 0);
      }
      const auto it = t.ended_uncommitted.find(d.job);
      return of_tasks(d) && it != t.ended_uncommitted.end() &&
             it->second.counts.failed + it->second.counts.cancelled > 0;
    });
  }

  // One for each of header.after. Of siblings in a graph there is nothing to say.
  Result<std::vector<core::Parent>> facts(const core::JobHeader& header) {
    std::vector<core::Parent> out;
    if (header.after.size() > limits::kDependencies) {
      return Error{ErrorClass::invalid_argument,
                   "A job may wait for at most " + std::to_string(limits::kDependencies) +
                       " others. Put a job in between that waits for a part of them.",
                   {}};
    }
    out.reserve(header.after.size());
    for (const auto& d : header.after) {
      core::Parent& parent = out.emplace_back();
      if (first && d.job >= *first) continue;
      auto stands = standing(d.job);
      if (!stands.ok()) return std::move(stands).error();
      if (!stands->open) {
        auto reached = check_reach(d, header.count, stands->count, "job " + std::to_string(d.job.value));
        if (!reached.ok()) return std::move(reached).error();
      }
      parent.ended = !stands->live;
      parent.succeeded = parent.ended && stands->state == core::JobState::completed;
      if (!of_tasks(d) || !stands->bad()) continue;
      auto bad = ended_badly(d.job, stands->counts);
      if (!bad.ok()) return std::move(bad).error();
      const RangeSet& all = **bad;
      if (!d.each) {
        if (all.contains(d.index)) parent.ended_badly.emplace_back(d.index, d.index + 1);
        continue;
      }
      for (const auto& [from, end] : all.ranges()) {
        if (from < header.count) parent.ended_badly.emplace_back(from, std::min(end, header.count));
      }
    }
    return out;
  }

 private:
  Result<Standing> standing(JobNo no) {
    if (const auto view = t.farm->job(no)) return Standing{true, view->open, view->state, view->counts, view->count};
    if (const auto it = t.ended_uncommitted.find(no); it != t.ended_uncommitted.end()) {
      GRANGE_MARK("parent_ended_not_on_disk");
      return Standing{false, false, it->second.state, it->second.counts, it->second.count};
    }
    auto row = t.reader->job(no);
    if (!row.ok()) return std::move(row).error();
    if (!*row) {
      return Error{
          ErrorClass::not_found,
          "It waits for job " + std::to_string(no.value) + ", which does not exist. It may have been forgotten.",
          {}};
    }
    return Standing{false, false, (*row)->state, (*row)->counts, (*row)->count};
  }

  // Tasks that ended without success.
  Result<const RangeSet*> ended_badly(JobNo no, const core::JobCounts& counts) {
    const auto known = bad_.find(no);
    if (known != bad_.end()) return &known->second;
    auto rows = t.reader->unhappy(no);
    if (!rows.ok()) return std::move(rows).error();
    RangeSet bad;
    std::uint32_t cancelled = 0;
    for (const auto& r : *rows) {
      bad.add(r.task.index());
      cancelled += r.end == core::TaskEnd::cancelled ? 1 : 0;
    }
    if (counts.cancelled > cancelled) {  // the rest of it was cancelled as a range, which has no outcomes
      auto rest = t.beyond(no);
      if (!rest.ok()) return std::move(rest).error();
      for (const auto& [from, end] : rest->without.ranges()) bad.add(from, end);
    }
    return &(bad_[no] = std::move(bad));
  }

  Impl& t;
  const std::optional<JobNo> first;
  std::map<JobNo, RangeSet> bad_;
};

Result<Turn::Impl::Beyond> Turn::Impl::beyond(JobNo no) {
  auto row = reader->job(no);
  if (!row.ok()) return std::move(row).error();
  Beyond found;
  if (!*row) return found;
  std::uint32_t next = (*row)->next_index;
  for (bool more = next < (*row)->count; more;) {
    auto page = reader->outcomes(no, next, limits::kPage, false);
    if (!page.ok()) return std::move(page).error();
    more = page->size() == limits::kPage;
    for (const auto& o : *page) {
      found.without.add(next, o.task.index());
      found.with_outcome.push_back(o.task.index());
      next = o.task.index() + 1;
    }
  }
  found.without.add(next, (*row)->count);
  return found;
}

// ------------------------------------------------------------------------------------------------- names of jobs

// The job that these names stand for already: the same again, or a conflict. First among those not on disk yet, then on
// disk.
Result<Turn::Impl::Known> Turn::Impl::known_job(const core::JobBody& body, Now now) {
  if (body.key.empty() && body.id.empty() && body.unique.empty()) return Known{};
  catch_up();
  auto known = known_key(body);
  if (!known.ok() || *known) return known;
  known = known_word(body, now);
  if (!known.ok() || *known) return known;
  if (!body.id.empty()) {
    if (uncommitted.contains("i" + body.id)) return conflict("id", body.id);
    auto found = reader->find_job(body.id);
    if (!found.ok()) return std::move(found).error();
    if (*found) return conflict("id", body.id);
  }
  return Known{};
}

Result<Turn::Impl::Known> Turn::Impl::known_key(const core::JobBody& body) {
  if (body.key.empty()) return Known{};
  if (const auto it = uncommitted.find("k" + body.key);
      it != uncommitted.end() && !GRANGE_MUTANT("no_dedupe_before_commit")) {
    if (it->second.digest != body.digest) return conflict("key", body.key);
    GRANGE_MARK("key_of_job_not_on_disk");
    return Known(SubmitCall::Answer{it->second.job, it->second.id, true});
  }
  auto found = reader->find_key(body.key);
  if (!found.ok()) return std::move(found).error();
  if (!*found) return Known{};
  if ((*found)->second != body.digest) return conflict("key", body.key);
  auto row = reader->job((*found)->first);
  if (!row.ok()) return std::move(row).error();
  if (!*row) return Known{};  // forgotten between the two looks
  return Known(SubmitCall::Answer{(*found)->first, (*row)->id, true});
}

// A uniqueness word keeps others out while its job has not ended and, with a window, for so long after its submit.
Result<Turn::Impl::Known> Turn::Impl::known_word(const core::JobBody& body, Now now) {
  if (body.unique.empty()) return Known{};
  const WallMs since = body.unique_for.count() > 0 ? WallMs{now.wall.ms - body.unique_for.count()} : WallMs{INT64_MAX};
  const auto live = [&](JobNo no) {
    const auto view = farm->job(no);
    return no.value > last_job || (view && !ended(view->state));  // beyond it: of the graph that is being taken in
  };
  if (const auto it = uncommitted.find("u" + body.unique); it != uncommitted.end()) {
    const Named& named = it->second;
    if (live(named.job) || named.at >= since) return Known(SubmitCall::Answer{named.job, named.id, true});
  }
  auto found = reader->find_unique(body.unique, since);
  if (!found.ok()) return std::move(found).error();
  if (!*found) return Known{};
  auto row = reader->job(**found);
  if (!row.ok()) return std::move(row).error();
  // On disk it may be live still, though it ended here already.
  if (!*row || (!live(**found) && (*row)->submitted < since)) return Known{};
  return Known(SubmitCall::Answer{**found, (*row)->id, true});
}

void Turn::Impl::name(JobNo job, const core::JobBody& body, const std::string& id, Now now) {
  const auto put = [&](const char* kind, const std::string& word) {
    if (word.empty()) return;
    uncommitted[kind + word] = {job, body.digest, id, now.wall};
    uncommitted_order.emplace_back(job, kind + word);
  };
  put("k", body.key);
  put("i", body.id);
  put("u", body.unique);
}

void Turn::Impl::unname(JobNo from) {
  for (; !uncommitted_order.empty() && uncommitted_order.back().first >= from; uncommitted_order.pop_back()) {
    uncommitted.erase(uncommitted_order.back().second);
  }
}

// ------------------------------------------------------------------------------------------------------- the calls

void Turn::Impl::on(SubmitCall& call, Now now) {
  using Answer = SubmitCall::Answer;
  const auto fail = [&](Error error) { answer(call.done, Result<Answer>(std::move(error))); };
  auto known = known_job(call.body, now);
  if (!known.ok()) return fail(std::move(known).error());
  if (*known) return answer(call.done, Result<Answer>(std::move(**known)));

  const JobNo no{last_job + 1};
  std::vector<core::Parent> facts;
  if (!call.header.after.empty()) {
    Parents parents(*this, std::nullopt);
    if (parents.wants_flush(call.header)) flush(now);
    auto stand = parents.facts(call.header);
    if (!stand.ok()) return fail(std::move(stand).error());
    facts = std::move(*stand);
  }
  const std::string id = call.body.id.empty() ? std::to_string(no.value) : call.body.id;
  name(no, call.body, id, now);
  call.body.id = id;
  const auto body = keep(std::move(call.body));
  const core::Event event = core::SubmitJob{no, std::move(call.header), body, std::move(facts)};
  auto stepped = step(event, now);
  if (!stepped.result.ok()) {
    unname(no);
    batch.bodies.pop_back();
    return fail(std::move(stepped.result).error());
  }
  last_job = no.value;
  pages->added(no, std::get<core::JobBody>(batch.bodies[body]).pages);
  inputs->added(no, std::get<core::SubmitJob>(event).header);
  answer(call.done, Result<Answer>(Answer{no, id, false}));
}

void Turn::Impl::on(GraphCall& call, Now now) {
  using Answers = std::vector<SubmitCall::Answer>;
  const JobNo first{last_job + 1};
  const auto fail = [&](Error error) {
    unname(first);
    answer(call.done, Result<Answers>(std::move(error)));
  };
  const auto fail_at = [&](std::size_t place, Error error) {
    fail(std::move(error).with_context("Job " + std::to_string(place + 1) + " of the graph"));
  };
  if (call.jobs.empty() || call.jobs.size() > limits::kGraphJobs) {
    return fail({ErrorClass::invalid_argument,
                 "A graph has from 1 to " + std::to_string(limits::kGraphJobs) + " jobs, this one " +
                     std::to_string(call.jobs.size()) + ".",
                 {}});
  }
  // Names first: a job that is there already takes its place in the graph.
  Answers answers;
  std::vector<std::size_t> fresh;
  for (std::size_t place = 0; place < call.jobs.size(); ++place) {
    auto& [header, body] = call.jobs[place];
    for (auto& d : header.after) {
      const std::uint32_t sibling = d.job.value - kSibling;
      if (d.job.value < kSibling) {
        if (d.job < first) continue;
        return fail_at(
            place,
            {ErrorClass::not_found, "It waits for job " + std::to_string(d.job.value) + ", which does not exist.", {}});
      }
      if (sibling >= place) {
        return fail_at(place, {ErrorClass::invalid_argument,
                               "It waits for a job that does not stand before it in the list. Put that one first; a "
                               "circle is not possible.",
                               {}});
      }
      d.job = answers[sibling].job;
      const auto& parent = call.jobs[sibling].first;
      if (d.job < first || parent.open) continue;
      auto reached = check_reach(d, header.count, parent.count, "job " + std::to_string(sibling + 1) + " of the graph");
      if (!reached.ok()) return fail_at(place, std::move(reached).error());
    }
    auto known = known_job(body, now);
    if (!known.ok()) return fail_at(place, std::move(known).error());
    if (*known) {
      answers.push_back(std::move(**known));
      continue;
    }
    const JobNo no{last_job + 1 + static_cast<std::uint32_t>(fresh.size())};
    const std::string id = body.id.empty() ? std::to_string(no.value) : body.id;
    name(no, body, id, now);
    body.id = id;
    answers.push_back({no, id, false});
    fresh.push_back(place);
  }
  if (fresh.empty()) return answer(call.done, Result<Answers>(std::move(answers)));

  Parents parents(*this, first);
  if (std::any_of(fresh.begin(), fresh.end(),
                  [&](std::size_t place) { return parents.wants_flush(call.jobs[place].first); })) {
    flush(now);
  }
  core::SubmitGraph graph;
  for (const std::size_t place : fresh) {
    auto facts = parents.facts(call.jobs[place].first);
    if (!facts.ok()) return fail_at(place, std::move(facts).error());
    graph.jobs.push_back({answers[place].job, {}, core::kNoBody, std::move(*facts)});
  }
  const auto bodies_before = static_cast<std::ptrdiff_t>(batch.bodies.size());
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    graph.jobs[i].header = std::move(call.jobs[fresh[i]].first);
    graph.jobs[i].body = keep(std::move(call.jobs[fresh[i]].second));
  }
  const core::Event event = std::move(graph);
  auto stepped = step(event, now);
  if (!stepped.result.ok()) {
    batch.bodies.erase(batch.bodies.begin() + bodies_before, batch.bodies.end());
    return fail(std::move(stepped.result).error());
  }
  last_job += static_cast<std::uint32_t>(fresh.size());
  for (const auto& job : std::get<core::SubmitGraph>(event).jobs) {
    pages->added(job.job, std::get<core::JobBody>(batch.bodies[job.body]).pages);
    inputs->added(job.job, job.header);
  }
  answer(call.done, Result<Answers>(std::move(answers)));
}

namespace {
std::string name_of(const ExtendCall& call) {
  return std::to_string(call.job.value) + "/" + call.key;
}
}  // namespace

Result<std::optional<std::uint32_t>> Turn::Impl::known_extend(const ExtendCall& call) {
  if (call.key.empty() || GRANGE_MUTANT("extend_key_ignored")) return std::optional<std::uint32_t>();
  catch_up();
  if (const auto it = uncommitted_extends.find(name_of(call)); it != uncommitted_extends.end()) {
    GRANGE_MARK("key_of_extend_not_on_disk");
    return std::optional(it->second);
  }
  return reader->find_extend(call.job, call.key);
}

void Turn::Impl::on(ExtendCall& call, Now now) {
  const auto fail = [&](Error error) { answer(call.done, Result<std::uint32_t>(std::move(error))); };
  auto known = known_extend(call);
  if (!known.ok()) return fail(std::move(known).error());
  if (*known) {
    GRANGE_MARK("extend_said_again");
    return answer(call.done, Result<std::uint32_t>(**known));
  }
  const auto view = farm->job(call.job);
  if (!view) {
    return fail(no_longer(call.job,
                          {ErrorClass::not_found, "There is no job " + std::to_string(call.job.value) + ".", {}},
                          "no task can be added"));
  }
  if (std::uint64_t{view->count} + call.count > limits::kTasksPerJob) {
    return fail({ErrorClass::invalid_argument,
                 "A job has at most " + std::to_string(limits::kTasksPerJob) + " tasks; this one has " +
                     std::to_string(view->count) + " and would get " + std::to_string(call.count) + " more.",
                 {}});
  }
  // Of the tasks that its tasks wait for one by one, some may have ended.
  std::vector<core::Parent> facts;
  core::JobHeader grown;
  grown.after = farm->after(call.job);
  if (call.count > 0 && std::any_of(grown.after.begin(), grown.after.end(), [](const auto& d) { return d.each; })) {
    grown.count = view->count + call.count;
    Parents parents(*this, std::nullopt);
    if (parents.wants_flush(grown)) flush(now);
    auto stand = parents.facts(grown);
    if (!stand.ok()) return fail(std::move(stand).error());
    facts = std::move(*stand);
  }
  for (auto& page : call.pages) page.first += view->count;
  BodyRef body = core::kNoBody;
  if (!call.pages.empty() || !call.blobs.empty()) {
    core::JobBody more;
    more.pages = std::move(call.pages);
    more.blobs = std::move(call.blobs);
    body = keep(std::move(more));
  }
  auto stepped = step(core::ExtendJob{call.job, call.count, call.close, body, std::move(facts), call.key}, now);
  if (!stepped.result.ok()) {
    if (body != core::kNoBody) batch.bodies.pop_back();
    return fail(std::move(stepped.result).error());
  }
  if (body != core::kNoBody) pages->extended(call.job, std::get<core::JobBody>(batch.bodies[body]).pages);
  if (!call.key.empty()) {
    batch.extends.push_back(name_of(call));
    uncommitted_extends[batch.extends.back()] = view->count + call.count;
  }
  answer(call.done, Result<std::uint32_t>(view->count + call.count));
}

}  // namespace grange::queue
