#include "server/runs/preflight.hpp"

#include <fmt/format.h>

#include <set>

#include "server/api/job_file.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

bool has(const google::protobuf::RepeatedPtrField<std::string>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::string listed(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size() && i < 5; ++i) out += (i == 0 ? "" : ", ") + cut_utf8(names[i], 80);
  return names.size() > 5 ? fmt::format("{} and {} more", out, names.size() - 5) : out;
}

json::object numbers_of(const std::string& text) {
  if (auto value = wire::parse_json(text); value && value->is_object()) return std::move(value->get_object());
  return {};
}

// At the context that the run asks for; the worker said how far it is good and how far it goes at all.
std::string fit_of(const pb::Model& model, std::uint32_t context) {
  if (context == 0 || (model.good_context() == 0 && model.max_context() == 0))
    return model.fit().empty() ? "UNKNOWN" : model.fit();
  if (model.good_context() != 0 && context <= model.good_context()) return "GOOD";
  return model.max_context() == 0 || context <= model.max_context() ? "RISK" : "FAIL";
}

void look_at_model(const RunSpec& spec, const pb::Service& service, const pb::Model& model, MachineCheck& out) {
  out.model = true;
  out.machine.model = model.name();
  out.service = service.name();
  out.quantization = model.quantization();
  out.digest = model.digest();
  out.numbers = numbers_of(model.fit_json());
  if (spec.kind == RunKind::llm) {
    out.context = spec.context();
    out.fit = fit_of(model, out.context);
    out.good_context = model.good_context();
    out.max_context = model.max_context();
    if (model.context() != 0 && out.context > model.context())
      out.warnings.push_back(
          fmt::format("the model was trained for {} tokens; {} are asked for", model.context(), out.context));
    if (!model.loaded() && spec.warmup == 0)
      out.warnings.emplace_back("the model is not in memory: the first request loads it (--warmup 1 keeps that out)");
  }
  if (service.state() == "loading") out.warnings.push_back(service.name() + " is still loading");
  for (const std::uint32_t c : spec.concurrency) {
    if (service.parallel() == 0 || c <= service.parallel()) continue;
    out.warnings.push_back(fmt::format("{} works on {} requests at once: more than that wait inside it", service.name(),
                                       service.parallel()));
    break;
  }
}

void look_at_services(const RunSpec& spec, const WorkerFacts& facts, MachineCheck& out) {
  std::vector<std::string> there;
  std::string note;
  const pb::Service* loading = nullptr;
  for (const pb::Service& service : facts.manifest.services()) {
    if (!serves(spec, service)) continue;
    if (service.state() == "down") {
      note = service.note();
      continue;
    }
    out.engine = true;
    if (service.state() == "loading" && loading == nullptr) loading = &service;
    for (const pb::Model& model : service.models()) {
      if (same_model(spec.model, model.name())) {
        if (!out.model || model.loaded()) look_at_model(spec, service, model, out);
      } else {
        there.push_back(model.name());
      }
    }
  }
  const bool workflow = spec.kind == RunKind::image && !spec.workflow.empty();
  if (workflow && out.engine) out.model = true;  // what it names is the service's to look for
  const std::string_view engine = name(spec.kind);
  if (out.engine && out.model) return;
  if (spec.allow_mock && has(facts.manifest.engines(), std::string(engine) + "-mock")) {
    out.mock = true;
    out.engine = out.model = true;
    out.warnings.push_back(there.empty() ? "a mock would answer: no service for it is up there"
                                         : "a mock would answer: the model is not there");
    return;
  }
  if (!out.engine) {
    out.problem = fmt::format("it has no {} service that is up{}", engine, note.empty() ? "" : " (" + note + ")");
  } else {
    out.problem =
        fmt::format("it does not have {} \"{}\"; it has {}", spec.kind == RunKind::llm ? "the model" : "the checkpoint",
                    cut_utf8(spec.model, 80), there.empty() ? "none" : listed(there));
  }
}

void look_at_cores(const RunSpec& spec, const WorkerFacts& facts, MachineCheck& out) {
  out.engine = out.model = has(facts.manifest.engines(), "compute");
  if (!out.engine) {
    out.problem = "it does not offer the engine \"compute\"";
    return;
  }
  const std::uint32_t cores = std::max(1u, facts.manifest.cpus_milli() / 1000);
  const auto threads = static_cast<std::uint32_t>(number_at(spec.settings, "threads").value_or(0));
  out.machine.cores = threads == 0 ? cores : std::min(threads, cores);
  if (threads > cores) out.warnings.push_back(fmt::format("it has {} cores for {} threads", cores, threads));
  std::uint32_t most = 0;
  for (const std::uint32_t c : spec.concurrency) most = std::max(most, c);
  if (most > std::max(1u, cores / out.machine.cores))
    out.warnings.push_back(
        fmt::format("only {} such tasks run there at once", std::max(1u, cores / out.machine.cores)));
}

bool wanted(const RunSpec& spec, const WorkerFacts& facts) {
  return spec.workers.empty() || std::any_of(spec.workers.begin(), spec.workers.end(), [&](const std::string& one) {
           return one == facts.id || one == facts.name;
         });
}

std::string larger(const MachineCheck& check) {
  if (check.good_context != 0) return fmt::format("; --num-ctx {} is the largest that fits well", check.good_context);
  if (check.max_context != 0) return fmt::format("; --num-ctx {} is the largest that fits at all", check.max_context);
  return "";
}

MachineCheck look(const RunSpec& spec, const WorkerFacts& facts) {
  MachineCheck out;
  out.worker = facts.worker;
  out.machine.id = facts.id;
  out.machine.name = facts.name.empty() ? facts.id : facts.name;
  out.reachable = facts.connected;
  spec.kind == RunKind::compute ? look_at_cores(spec, facts, out) : look_at_services(spec, facts, out);
  const bool able = out.engine;
  if (facts.running > 0)
    out.warnings.push_back(
        fmt::format("busy: it runs {} {} of others", facts.running, facts.running == 1 ? "task" : "tasks"));
  if (out.fit == "RISK")
    out.warnings.push_back(
        fmt::format("the model fits with {} tokens of context only just{}", out.context, larger(out)));
  if (out.problem.empty() && out.fit == "FAIL")
    out.problem = fmt::format("the model does not fit with {} tokens of context{}", out.context, larger(out));
  // These no force overcomes.
  std::string never;
  if (!facts.connected)
    never = "it is not connected";
  else if (facts.draining)
    never = "it is draining: it takes nothing new";
  else if (facts.quarantined)
    never = "it is in quarantine (grange workers release ends that)";
  else if (!able)
    never = out.problem;
  if (!never.empty()) {
    out.problem = never;
    return out;
  }
  out.chosen = out.problem.empty() || spec.force;
  out.machine.forced = out.chosen && !out.problem.empty();
  return out;
}

// Names are what people and files tell machines apart by.
void make_names_unique(std::vector<MachineCheck>& machines) {
  std::map<std::string, int> times;
  for (const MachineCheck& one : machines) ++times[one.machine.name];
  std::set<std::string> taken;
  for (MachineCheck& one : machines) {
    if (times[one.machine.name] > 1) one.machine.name += " (" + one.machine.id.substr(0, 8) + ")";
    while (!taken.insert(one.machine.name).second) one.machine.name += "'";
  }
}

void compare_models(const std::vector<MachineCheck>& machines, std::vector<std::string>& warnings) {
  const auto differ = [&](std::string MachineCheck::*what) {
    std::map<std::string, std::vector<std::string>> by;
    for (const MachineCheck& one : machines) {
      if (one.chosen && !one.mock && !(one.*what).empty()) by[one.*what].push_back(one.machine.name);
    }
    return by;
  };
  if (const auto by = differ(&MachineCheck::quantization); by.size() > 1) {
    std::string text;
    for (const auto& [what, names] : by) text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", what, listed(names));
    warnings.push_back("the machines have the model in different quantisations, so they do not do the same work (" +
                       text + ")");
  } else if (differ(&MachineCheck::digest).size() > 1) {
    warnings.emplace_back("the machines have different files under this model's name");
  }
}

// By what people call them; of those that are connected.
std::string no_such_worker(const std::string& name, const std::vector<WorkerFacts>& workers) {
  std::vector<std::string> there;
  for (const WorkerFacts& one : workers) {
    if (one.connected) there.push_back(one.name.empty() ? one.id : one.name);
  }
  const std::vector<std::string_view> names(there.begin(), there.end());
  const std::string_view near = nearest(name, names);
  return fmt::format("There is no worker \"{}\".{} {}", cut_utf8(name, 80),
                     near.empty() ? "" : fmt::format(" Did you mean \"{}\"?", near),
                     there.empty() ? "None is connected; start one with: grange worker --server URL"
                                   : "Connected are: " + listed(there) + ".");
}

}  // namespace

bool serves(const RunSpec& spec, const pb::Service& service) {
  const std::string& kind = service.kind();
  if (!spec.service.empty() && service.name() != spec.service) return false;
  if (spec.kind == RunKind::image) return kind == "comfyui";
  return spec.kind == RunKind::llm && (kind == "ollama" || kind == "llamacpp" || kind == "openai");
}

// Ollama's "x" is "x:latest".
bool same_model(std::string_view asked, std::string_view have) {
  if (asked == have) return true;
  const auto bare = [](std::string_view name) {
    return name.ends_with(":latest") ? name.substr(0, name.size() - 7) : name;
  };
  return bare(asked) == bare(have);
}

std::vector<const MachineCheck*> Preflight::chosen() const {
  std::vector<const MachineCheck*> out;
  for (const MachineCheck& one : machines) {
    if (one.chosen) out.push_back(&one);
  }
  return out;
}

Preflight preflight(const RunSpec& spec, const std::vector<WorkerFacts>& workers) {
  Preflight out;
  for (const WorkerFacts& facts : workers) {
    if (!wanted(spec, facts) || (spec.workers.empty() && !facts.connected)) continue;
    out.machines.push_back(look(spec, facts));
  }
  for (const std::string& name : spec.workers) {
    if (std::any_of(workers.begin(), workers.end(),
                    [&](const WorkerFacts& one) { return one.id == name || one.name == name; }))
      continue;
    MachineCheck missing;
    missing.machine.id = missing.machine.name = cut_utf8(name, limits::kNameBytes);
    missing.problem = no_such_worker(name, workers);
    out.unknown += (out.unknown.empty() ? "" : " ") + missing.problem;
    out.machines.push_back(std::move(missing));
  }
  make_names_unique(out.machines);
  compare_models(out.machines, out.warnings);
  for (const MachineCheck& one : out.machines) {
    if (one.chosen || (spec.workers.empty() && !one.engine)) continue;
    out.warnings.push_back(fmt::format("{} is left out: {}", one.machine.name, one.problem));
  }
  return out;
}

Result<> anything_left(const RunSpec& spec, const Preflight& preflight) {
  // Not a race of fewer machines than were asked for, because of a slip of the pen.
  if (!preflight.unknown.empty()) return Error{ErrorClass::invalid_argument, preflight.unknown};
  const auto chosen = preflight.chosen();
  if (chosen.empty()) {
    if (preflight.machines.empty())
      return Error{ErrorClass::conflict, "No worker is connected; start one with: grange worker --server URL"};
    std::string why;
    bool forceable = false;
    for (std::size_t i = 0; i < preflight.machines.size() && i < 10; ++i) {
      const MachineCheck& one = preflight.machines[i];
      why += fmt::format("{}{}: {}", i == 0 ? "" : "; ", one.machine.name, one.problem);
      forceable = forceable || (one.reachable && one.engine);
    }
    return Error{ErrorClass::conflict, fmt::format("No machine is left for this race. {}.{}", why,
                                                   forceable ? " --force runs it all the same." : "")};
  }
  std::uint64_t tasks = 0;
  for (const Phase& phase : spec.phases()) tasks += phase.tasks * chosen.size();
  if (chosen.size() > kRunMachines || tasks > kRunTasks)
    return Error{ErrorClass::too_large,
                 fmt::format("A race has at most {} machines and {} requests in all; this one would "
                             "have {} and {}.",
                             kRunMachines, kRunTasks, chosen.size(), tasks)};
  return {};
}

json::object preflight_json(const RunSpec& spec, const Preflight& preflight) {
  const auto words = [](const std::vector<std::string>& list) {
    json::array out;
    for (const std::string& one : list) out.emplace_back(one);
    return out;
  };
  json::array machines;
  for (const MachineCheck& one : preflight.machines) {
    machines.push_back(json::object{{"machine", one.machine.name},
                                    {"machine_id", one.machine.id},
                                    {"reachable", one.reachable},
                                    {"engine_offered", one.engine},
                                    {"model_there", one.model},
                                    {"model", one.machine.model},
                                    {"service", one.service},
                                    {"quantization", one.quantization},
                                    {"mock", one.mock},
                                    {"fit", one.fit},
                                    {"num_ctx", one.context},
                                    {"good_context", one.good_context},
                                    {"max_context", one.max_context},
                                    {"fit_numbers", one.numbers},
                                    {"warnings", words(one.warnings)},
                                    {"problem", one.problem.empty() ? json::value(nullptr) : json::value(one.problem)},
                                    {"chosen", one.chosen}});
  }
  return {{"kind", name(spec.kind)},
          {"ok", anything_left(spec, preflight).ok()},
          {"machines", std::move(machines)},
          {"warnings", words(preflight.warnings)}};
}

}  // namespace grange::server
