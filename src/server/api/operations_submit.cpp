// How work is taken in: one job, a graph of them, or only the question what would become of one.
#include "server/api/operations.hpp"

#include <fmt/format.h>

#include "core/farm.hpp"
#include "server/api/graph.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {
namespace {

Error stopping() {
  return Error{ErrorClass::unavailable, "The server is stopping. Try again when it is back."};
}

std::size_t bytes_of(const std::vector<core::ArgumentPage>& pages) {
  std::size_t bytes = 0;
  for (const auto& page : pages) bytes += page.bytes.size() + page.sizes.size() * sizeof(std::uint32_t);
  return bytes;
}

// On a reader's thread: what only the store knows of a submit. The job then holds on to the code itself: a newer
// version under the same name does not change it.
Result<> look_up(store::Reader& reader, pb::JobSpec& spec, const std::vector<std::optional<std::size_t>>& siblings) {
  const std::string& model = spec.python().model();
  if (!model.empty() && spec.python().code_sha256().empty()) {
    const std::size_t slash = model.find('/');
    if (slash == std::string::npos || slash == 0 || slash + 1 == model.size())
      return Error{ErrorClass::invalid_argument, "\"model\" must be NAME/VERSION, such as \"resize/1\"."};
    auto row = reader.get_model(model.substr(0, slash), model.substr(slash + 1));
    if (!row) return std::move(row).error();
    if (!row->has_value()) {
      return Error{ErrorClass::not_found, "There is no model \"" + model.substr(0, limits::kNameBytes) +
                                              "\". Put it there with: PUT /models/NAME/VERSION"};
    }
    spec.mutable_python()->set_code_sha256((*row)->sha256);
  }
  for (int i = 0; i < spec.depends_on_size(); ++i) {
    pb::DependsOn& one = *spec.mutable_depends_on(i);
    one.set_job(0);
    if (static_cast<std::size_t>(i) < siblings.size() && siblings[static_cast<std::size_t>(i)]) continue;
    auto parent = read_ref(reader, one.job_id());
    if (!parent) return std::move(parent).error();
    auto row = reader.job(*parent);
    if (!row) return std::move(row).error();
    if (!row->has_value()) return no_such_job(one.job_id());
    if (one.one() && one.index() >= (*row)->count) {
      return Error{ErrorClass::not_found, fmt::format("\"after\": job {} has tasks 0 to {}; there is no task {}.",
                                                      cut_utf8(one.job_id(), 64), (*row)->count - 1, one.index())};
    }
    one.set_job(parent->value);
  }
  return {};
}

// A name in `after` that is neither a sibling's nor a job's id: say so, and which name is near.
Error explain_unknown(Error error, const pb::JobSpec& spec, const std::vector<std::optional<std::size_t>>& siblings,
                      const std::vector<std::string_view>& names, const std::string& who) {
  if (error.cls == ErrorClass::not_found) {
    for (std::size_t k = 0; k < siblings.size(); ++k) {
      const std::string& asked = spec.depends_on(static_cast<int>(k)).job_id();
      if (siblings[k] || error.message.find("\"" + asked.substr(0, limits::kNameBytes) + "\"") == std::string::npos)
        continue;
      const std::string_view near = nearest(asked, names);
      return Error{ErrorClass::not_found,
                   fmt::format("{} waits for \"{}\", which is neither a job of the graph nor the id of one that is "
                               "here.{}",
                               who, cut_utf8(asked, 64),
                               near.empty() ? std::string() : fmt::format(" Did you mean \"{}\"?", near))};
    }
  }
  return std::move(error).with_context(who);
}

std::string digest_of(const SubmitInput& input) {
  std::string digest = job_digest(input.spec, input.pages);
  // Times that count from now on are part of what was asked; what they come to is not, or no repeat were one.
  if (input.start_in.count() != 0) digest += fmt::format("+start{}", input.start_in.count());
  if (input.finish_in.count() != 0) digest += fmt::format("+finish{}", input.finish_in.count());
  return digest;
}

Result<> settle_times(SubmitInput& input, WallMs now) {
  const auto at = [now](Millis in) { return static_cast<std::uint64_t>(now.ms + in.count()); };
  if (input.start_in.count() != 0) input.spec.set_not_before_ms(at(input.start_in));
  if (input.finish_in.count() != 0) input.spec.set_deadline_ms(at(input.finish_in));
  return check_times(input.spec);
}

// How something that a job would wait for has ended already. The core knows live jobs only.
struct EndedParent {
  std::string what;  // "job 7, which failed"
  bool bad = false;
};

Result<EndedParent> ended_parent(store::Reader& reader, const core::Dependency& d, std::uint32_t count) {
  EndedParent out;
  auto row = reader.job(d.job);
  if (!row) return std::move(row).error();
  if (!row->has_value() || !core::ended((*row)->state) || (*row)->state == core::JobState::completed) return out;
  const std::string job = "job " + (*row)->id;
  if (!d.each && d.index == core::Dependency::kAll) {
    out.bad = true;
    out.what = job + ((*row)->state == core::JobState::cancelled ? ", which was cancelled" : ", which failed");
    return out;
  }
  // A task without an outcome was cancelled with its job.
  const std::uint32_t from = d.each ? 0 : d.index, to = d.each ? std::min(count, (*row)->count) : d.index + 1;
  std::uint32_t next = from;
  while (next < to && !out.bad) {
    auto rows = reader.outcomes(d.job, next, std::min<std::uint32_t>(to - next, limits::kPage), false);
    if (!rows) return std::move(rows).error();
    const std::uint32_t end = next + std::min<std::uint32_t>(to - next, limits::kPage);
    for (const store::OutcomeRow& one : *rows) {
      if (one.task.index() != next || one.end != core::TaskEnd::completed) break;
      ++next;
    }
    out.bad = next < end;
  }
  out.what = fmt::format("task {} of {}, which did not succeed", next, job);
  return out;
}

// What it would wait for, were what it waits for not over: puts that first.
void say_ended(const core::JobHeader& header, const std::vector<EndedParent>& ended, const core::Farm& farm,
               core::Explanation& plan) {
  if (header.when == core::When::all_finished) return;
  const EndedParent* bad = nullptr;
  bool each = false, hope = false;
  for (std::size_t k = 0; k < header.after.size(); ++k) {
    const bool over = ended[k].bad && !farm.job(header.after[k].job);  // it may have been retried meanwhile
    hope = hope || !over;
    if (!over || (bad != nullptr && !each)) continue;
    bad = &ended[k];
    each = header.after[k].each;
  }
  if (bad == nullptr || (header.when == core::When::any_succeeded && hope)) return;
  const std::string fate =
      each ? "Those of its tasks whose own did not succeed would fail at once, with the class dependency."
           : "It would fail at once, with the class dependency.";
  plan.waits.insert(
      plan.waits.begin(),
      core::Reason{
          .code = "dependency", .text = "It waits for " + bad->what + ". " + fate, .have = 0, .need = 0, .until = {}});
  plan.summary = plan.waits.front().text;
}

queue::SubmitCall make_call(SubmitInput& input, std::string digest) {
  const auto in_space = [&](const std::string& word) {
    return word.empty() || input.keys_of.empty() ? word : input.keys_of + "\n" + word;
  };
  queue::SubmitCall call;
  call.header = make_header(input.spec);
  call.body.id = input.id;
  // A client's own id is a key as well: the same job again is that job, another is a conflict.
  call.body.key = input.spec.key().empty() && !input.id.empty() ? "id:" + input.id : in_space(input.spec.key());
  call.body.digest = std::move(digest);
  call.body.name = input.spec.name();
  call.body.user = input.spec.user();
  call.body.engine = input.spec.engine();
  call.body.spec = serialize_stably(input.spec);
  call.body.blobs = job_blobs(input.spec, input.pages);
  call.body.unique = in_space(input.spec.unique());
  call.body.unique_for = Millis{static_cast<std::int64_t>(input.spec.unique_ms())};
  call.body.pages = std::move(input.pages);
  return call;
}

// As whom, and on what: a job that changes a machine takes more than one that runs there. Who submits as himself only
// has keys and words of his own: he takes none of another, nor that of a schedule's next run.
Result<> may_submit(const Principal& who, SubmitInput& input) {
  if (right(role_of(who), Action::submit_job) == Right::own) input.keys_of = who.name;
  if (auto may = authorize(who, Action::submit_job, {"job", input.id, input.spec.user()}); !may) return may;
  const bool named = !input.spec.engine().empty();  // else it goes by the table that is there
  if ((named ? input.spec.engine() : implied_engine(input.spec)) != "models") return {};
  return authorize(who, Action::change_machines, {"machine"});
}

JobMetaPtr make_meta(const queue::SubmitCall::Answer& answer, std::shared_ptr<const pb::JobSpec> spec,
                     std::size_t spec_bytes) {
  return std::make_shared<JobMeta>(JobMeta{.job = answer.job,
                                           .id = answer.id.empty() ? std::to_string(answer.job.value) : answer.id,
                                           .name = spec->name(),
                                           .user = spec->user(),
                                           .engine = spec->engine(),
                                           .count = spec->count(),
                                           .spec = spec,
                                           .bytes = spec_bytes});
}

}  // namespace

void Operations::submit(const Principal& who, SubmitInput input, Done<SubmitAnswer> done) {
  if (input.spec.user().empty()) input.spec.set_user(who.name);
  if (auto may = may_submit(who, input); !may) return done(std::move(may).error());
  if (s_.stopping) return done(stopping());
  prepare(std::move(input), [this, done = std::move(done)](Result<std::shared_ptr<SubmitInput>> ready) {
    if (!ready) return done(std::move(ready).error());
    const std::shared_ptr<SubmitInput> job = *ready;
    if (bytes_of(job->pages) <= limits::kInline) {
      std::string digest = digest_of(*job);
      return hand_over(std::move(*job), std::move(digest), done);
    }
    // Hashing megabytes is not for the Loop.
    s_.files->read<std::string>([job](store::Reader&) -> Result<std::string> { return digest_of(*job); },
                                [this, job, done](Result<std::string> digest) {
                                  if (!digest) return done(std::move(digest).error());
                                  hand_over(std::move(*job), std::move(*digest), done);
                                });
  });
}

void Operations::prepare(SubmitInput input, Done<std::shared_ptr<SubmitInput>> done) {
  auto shared = std::make_shared<SubmitInput>(std::move(input));
  const auto check = [this, shared, done](Result<> found) {
    if (!found) return done(std::move(found).error());
    const BlobFacts blobs{[this](const std::string& sha256) { return s_.blobs->size(sha256).has_value(); }};
    if (auto valid = validate_job(shared->spec, shared->id, shared->pages, blobs); !valid)
      return done(std::move(valid).error());
    done(shared);
  };
  const pb::JobSpec& spec = shared->spec;
  const bool by_model = !spec.python().model().empty() && spec.python().code_sha256().empty();
  if (!by_model && spec.depends_on_size() == 0) return check({});
  if (auto order = check_order(spec); !order) return done(std::move(order).error());
  s_.readers->read<Unit>([shared](store::Reader& reader) { return look_up(reader, shared->spec, {}); }, check);
}

void Operations::hand_over(SubmitInput input, std::string digest, Done<SubmitAnswer> done) {
  if (s_.stopping) return done(stopping());
  if (auto fine = settle_times(input, s_.clock.now().wall); !fine) return done(std::move(fine).error());
  queue::SubmitCall call = make_call(input, std::move(digest));
  const std::size_t spec_bytes = call.body.spec.size();
  auto spec = std::make_shared<pb::JobSpec>(std::move(input.spec));
  call.done = [this, spec, spec_bytes, post = s_.post,
               done = std::move(done)](Result<queue::SubmitCall::Answer> answer) {
    // Released in the order of commits: what is posted here comes before every delivery about the job.
    post([this, spec, spec_bytes, done, answer = std::move(answer)]() mutable {
      if (!answer) return done(std::move(answer).error());
      if (answer->existed) {
        return s_.jobs->with(answer->job, [done](Result<JobMetaPtr> meta) {
          if (!meta) return done(std::move(meta).error());
          done(SubmitAnswer{.meta = *meta, .existed = true});
        });
      }
      JobMetaPtr meta = make_meta(*answer, spec, spec_bytes);
      s_.jobs->put(meta);
      done(SubmitAnswer{.meta = std::move(meta), .existed = false});
    });
  };
  s_.queue->submit(std::move(call));
}

void Operations::submit_graph(const Principal& who, std::vector<SubmitInput> jobs,
                              Done<std::vector<SubmitAnswer>> done) {
  if (auto may = authorize(who, Action::submit_job, {"graph"}); !may) return done(std::move(may).error());
  if (s_.stopping) return done(stopping());
  if (jobs.empty() || jobs.size() > limits::kGraphJobs) {
    return done(Error{ErrorClass::invalid_argument,
                      fmt::format("A graph has 1 to {} jobs; this one has {}.", limits::kGraphJobs, jobs.size())});
  }
  struct Graph {
    std::vector<SubmitInput> jobs;
    GraphOrder order;
    std::vector<std::string> digests;
  };
  auto graph = std::make_shared<Graph>();
  graph->jobs = std::move(jobs);
  for (SubmitInput& input : graph->jobs) {
    if (input.spec.user().empty()) input.spec.set_user(who.name);
    if (auto may = may_submit(who, input); !may) return done(std::move(may).error());
  }
  // Ten thousand jobs take their time to be looked at.
  s_.files->read<Unit>(
      [graph, blobs = s_.blobs](store::Reader& reader) -> Result<> {
        std::vector<const pb::JobSpec*> specs;
        std::vector<std::string_view> names;
        for (const SubmitInput& input : graph->jobs) {
          specs.push_back(&input.spec);
          names.push_back(input.spec.name());
        }
        auto order = order_graph(specs);
        if (!order) return std::move(order).error();
        graph->order = std::move(*order);
        const BlobFacts facts{[blobs](const std::string& sha256) { return blobs->size(sha256).has_value(); }};
        for (std::size_t i = 0; i < graph->jobs.size(); ++i) {
          SubmitInput& input = graph->jobs[i];
          const std::string name = input.spec.name().empty() ? fmt::format("Job {} of the graph", i + 1)
                                                             : "Job \"" + cut_utf8(input.spec.name(), 64) + "\"";
          if (auto fine = check_order(input.spec); !fine) return std::move(fine).error().with_context(name);
          if (auto found = look_up(reader, input.spec, graph->order.siblings[i]); !found)
            return explain_unknown(std::move(found).error(), input.spec, graph->order.siblings[i], names, name);
          for (std::size_t k = 0; k < graph->order.siblings[i].size(); ++k) {
            const auto sibling = graph->order.siblings[i][k];
            const pb::DependsOn& one = input.spec.depends_on(static_cast<int>(k));
            if (!sibling || !one.one() || one.index() < graph->jobs[*sibling].spec.count()) continue;
            return Error{ErrorClass::invalid_argument,
                         fmt::format("{}: \"{}\" has {} tasks; there is no task {}.", name, cut_utf8(one.job_id(), 64),
                                     graph->jobs[*sibling].spec.count(), one.index())};
          }
          if (auto valid = validate_job(input.spec, input.id, input.pages, facts); !valid)
            return std::move(valid).error().with_context(name);
          graph->digests.push_back(digest_of(input));
        }
        return {};
      },
      [this, graph, done = std::move(done)](Result<> ready) {
        if (!ready) return done(std::move(ready).error());
        hand_over_graph(std::move(graph->jobs), std::move(graph->digests), std::move(graph->order), done);
      });
}

void Operations::hand_over_graph(std::vector<SubmitInput> jobs, std::vector<std::string> digests, GraphOrder graph,
                                 Done<std::vector<SubmitAnswer>> done) {
  if (s_.stopping) return done(stopping());
  const WallMs now = s_.clock.now().wall;
  std::vector<std::uint32_t> place(jobs.size());  // in the queue's list, parents first
  for (std::size_t k = 0; k < graph.order.size(); ++k) place[graph.order[k]] = static_cast<std::uint32_t>(k);
  struct Known {
    std::shared_ptr<const pb::JobSpec> spec;
    std::size_t bytes = 0;
  };
  auto known = std::make_shared<std::vector<Known>>(jobs.size());
  queue::GraphCall call;
  for (const std::size_t at : graph.order) {
    SubmitInput& input = jobs[at];
    if (auto fine = settle_times(input, now); !fine) {
      return done(std::move(fine).error().with_context(input.spec.name().empty()
                                                           ? fmt::format("Job {} of the graph", at + 1)
                                                           : "Job \"" + cut_utf8(input.spec.name(), 64) + "\""));
    }
    queue::SubmitCall one = make_call(input, std::move(digests[at]));
    for (std::size_t k = 0; k < graph.siblings[at].size(); ++k) {
      if (const auto sibling = graph.siblings[at][k]) one.header.after[k].job = {queue::kSibling + place[*sibling]};
    }
    (*known)[at].bytes = one.body.spec.size();
    (*known)[at].spec = std::make_shared<pb::JobSpec>(std::move(input.spec));
    call.jobs.emplace_back(std::move(one.header), std::move(one.body));
  }
  call.done = [this, known, place = std::move(place), post = s_.post,
               done = std::move(done)](Result<std::vector<queue::SubmitCall::Answer>> answers) {
    post([this, known, place, done, answers = std::move(answers)]() mutable {
      if (!answers) return done(std::move(answers).error());
      struct Gather {
        std::vector<SubmitAnswer> out;
        std::size_t lacking = 0;
        bool over = false;
      };
      auto gather = std::make_shared<Gather>();
      gather->out.resize(place.size());
      gather->lacking = place.size();
      for (std::size_t i = 0; i < place.size(); ++i) {
        const queue::SubmitCall::Answer& answer = (*answers)[place[i]];
        const auto got = [gather, i, done, existed = answer.existed](Result<JobMetaPtr> meta) {
          if (gather->over) return;
          if (!meta) {
            gather->over = true;
            return done(std::move(meta).error());
          }
          gather->out[i] = {.meta = *meta, .existed = existed};
          if (--gather->lacking == 0) done(std::move(gather->out));
        };
        if (answer.existed) {
          s_.jobs->with(answer.job, got);
        } else {
          JobMetaPtr meta = make_meta(answer, (*known)[i].spec, (*known)[i].bytes);
          s_.jobs->put(meta);
          got(std::move(meta));
        }
      }
    });
  };
  s_.queue->submit_graph(std::move(call));
}

void Operations::plan(const Principal& who, SubmitInput input, Done<core::Explanation> done) {
  if (input.spec.user().empty()) input.spec.set_user(who.name);
  if (auto may = may_submit(who, input); !may) return done(std::move(may).error());
  prepare(std::move(input), [this, done = std::move(done)](Result<std::shared_ptr<SubmitInput>> ready) {
    if (!ready) return done(std::move(ready).error());
    if (auto fine = settle_times(**ready, s_.clock.now().wall); !fine) return done(std::move(fine).error());
    const auto header = std::make_shared<const core::JobHeader>(make_header((*ready)->spec));
    using Ended = std::shared_ptr<std::vector<EndedParent>>;
    s_.readers->read<Ended>(
        [header](store::Reader& reader) -> Result<Ended> {
          auto out = std::make_shared<std::vector<EndedParent>>();
          for (const core::Dependency& d : header->after) {
            auto found = ended_parent(reader, d, header->count);
            if (!found) return std::move(found).error();
            out->push_back(std::move(*found));
          }
          return out;
        },
        [this, header, done](Result<Ended> ended) {
          if (!ended) return done(std::move(ended).error());
          s_.queue->inspect([header, ended = *ended, post = s_.post, done](const core::Farm& farm, Now now) {
            core::Explanation plan = farm.preview(*header, now);
            say_ended(*header, *ended, farm, plan);
            post([done, plan = std::move(plan)]() mutable { done(std::move(plan)); });
          });
        });
  });
}

}  // namespace grange::server
