#include "cli/models_look.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/suggest.hpp"
#include "cli/term.hpp"
#include "worker/services/answers.hpp"

namespace grange::cli::models {
namespace {

json::array services_of(const json::value& worker) {
  const json::value* services = field(worker, "services");
  return services != nullptr && services->is_array() ? services->get_array() : json::array();
}

std::string tokens(const json::value& model, std::string_view key) {
  const std::int64_t n = num(model, key);
  return n > 0 ? human_count(static_cast<std::uint64_t>(n)) : "-";
}

std::string or_dash(std::string text) {
  return text.empty() ? "-" : printable(text);
}

// The verdict at a context that was not worked out by the worker: by the two limits that it told. The cache grows with
// the context, so that its size follows from what it is at another.
json::object fit_row(const Machine& machine, const json::value& service, const json::value& model,
                     std::uint32_t context) {
  const json::value* known = field(model, "fit_numbers");
  const json::value numbers = known != nullptr ? *known : json::value(nullptr);
  const std::int64_t at = num(numbers, "context"), good = num(model, "good_context"), most = num(model, "max_context");
  std::string verdict = str(model, "fit", "UNKNOWN"), reason = str(numbers, "reason");
  double kv = real(numbers, "kv"), need = real(numbers, "need");
  bool estimated = false;
  if (context != 0 && static_cast<std::int64_t>(context) != at && verdict != "UNKNOWN") {
    estimated = true;
    verdict = context <= good ? "GOOD" : context <= most ? "RISK" : "FAIL";
    const double scaled = at > 0 ? kv * context / static_cast<double>(at) : kv;
    need += scaled - kv;
    kv = scaled;
    reason = verdict == "GOOD" ? fmt::format("GOOD up to {} tokens.", human_count(static_cast<std::uint64_t>(good)))
             : most == 0       ? "It does not fit this machine at any context."
                               : fmt::format("It does not fail up to {} tokens; GOOD up to {}.",
                                             human_count(static_cast<std::uint64_t>(most)),
                                             human_count(static_cast<std::uint64_t>(good)));
  }
  // 0 is not known, but for a model that is judged: then nothing of it is in the way, or nothing fits.
  const bool judged = verdict != "UNKNOWN" && numbers.is_object();
  const auto figure = [&](std::int64_t value, bool zero_counts) {
    return judged && (value > 0 || zero_counts) ? json::value(value) : json::value(nullptr);
  };
  return {{"worker", machine.id},
          {"worker_name", machine.name},
          {"service", str(service, "name")},
          {"model", str(model, "name")},
          {"fit", verdict},
          {"context", context != 0 ? json::value(context) : figure(at, false)},
          {"weights", figure(num(numbers, "weights"), false)},
          {"kv", figure(static_cast<std::int64_t>(kv), false)},
          {"overhead", figure(num(numbers, "overhead"), false)},
          {"need", figure(static_cast<std::int64_t>(need), false)},
          {"free", figure(num(numbers, "free"), false)},
          {"gpu_layers", figure(num(numbers, "gpu_layers"), true)},
          {"layers", figure(num(numbers, "layers"), false)},
          {"good_context", figure(good, most > 0 || verdict == "FAIL")},
          {"max_context", figure(most, verdict == "FAIL")},
          {"estimated_from_context", estimated ? json::value(at) : json::value(nullptr)},
          {"reason", reason}};
}

// Of a fit: what is not known is a question, not a zero.
std::string asked_bytes(const json::value& row, std::string_view key) {
  const json::value* value = field(row, key);
  if (value == nullptr || !value->is_number()) return "?";
  return human_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(0, num(row, key))));
}

std::string asked_tokens(const json::value& row, std::string_view key) {
  const json::value* value = field(row, key);
  if (value == nullptr || !value->is_number()) return "?";
  return human_count(static_cast<std::uint64_t>(std::max<std::int64_t>(0, num(row, key))));
}

}  // namespace

std::string shown_name(const Machine& machine) {
  return printable(machine.name.empty() ? machine.id : machine.name);
}

json::array models_of(const json::value& service) {
  const json::value* models = field(service, "models");
  return models != nullptr && models->is_array() ? models->get_array() : json::array();
}

std::vector<Machine> machines(Rest& rest, const std::vector<std::string>& wanted) {
  std::vector<Machine> all, out;
  for (const json::value& worker : list(rest.get("/api/workers"))) {
    if (!flag(worker, "connected")) continue;
    all.push_back({str(worker, "id"), str(worker, "name"), services_of(worker)});
  }
  if (all.empty()) throw Exit{kFailed, "No worker is connected. Start one with: grange worker --url " + rest.url()};
  if (wanted.empty()) return all;
  for (const std::string& word : wanted) {
    std::vector<const Machine*> found;
    for (const Machine& one : all) {
      if (one.id == word) found = {&one};
      if (one.id == word) break;
      if (one.name == word) found.push_back(&one);
    }
    if (found.empty()) {
      std::vector<std::string> names;
      std::string there;
      for (const Machine& one : all) {
        names.push_back(one.name.empty() ? one.id : one.name);
        if (names.size() <= 8) there += (there.empty() ? "" : ", ") + printable(names.back());
      }
      if (names.size() > 8) there += fmt::format(" and {} more", names.size() - 8);
      const std::string near = nearest(word, names);
      throw Exit{kNotFound,
                 fmt::format("No worker \"{}\" is connected.{} Connected are: {}.", word,
                             near.empty() ? "" : fmt::format(" Did you mean \"{}\"?", printable(near)), there)};
    }
    if (found.size() > 1)
      throw Exit{kUsage, fmt::format("{} workers are called {}; name one by its id, as `grange workers` shows it.",
                                     found.size(), word)};
    out.push_back(*found.front());
  }
  return out;
}

std::string usable(const json::value& model) {
  const std::int64_t good = num(model, "good_context"), most = num(model, "max_context");
  const std::string fit = str(model, "fit");
  if (good <= 0 && most <= 0) return fit == "FAIL" ? "none" : "?";
  const auto count = [](std::int64_t n) { return human_count(static_cast<std::uint64_t>(n)); };
  if (good <= 0) return fmt::format("at most {}", count(most));
  return most > good ? fmt::format("{} (at most {})", count(good), count(most)) : count(good);
}
std::string size_of(std::int64_t bytes) {
  return bytes > 0 ? human_bytes(static_cast<std::uint64_t>(bytes)) : "-";
}
int list_models(Context& context, const ModelsOptions& options) {
  Rest rest(context);
  const auto chosen = machines(rest, options.worker.empty() ? std::vector<std::string>() : std::vector{options.worker});
  if (context.json) {
    json::array out;
    for (const Machine& machine : chosen)
      out.push_back(json::object{{"worker", machine.id}, {"name", machine.name}, {"services", machine.services}});
    print_json(out);
    return kOk;
  }
  Table table({"WORKER", "SERVICE", "STATE", "MODEL", "SIZE", "QUANT", "TRAINED", "USABLE", "LOADED", "FIT"});
  for (const std::size_t column : {4, 6, 7}) table.align_right(column);
  std::size_t rows = 0;
  std::vector<std::string> notes;
  for (const Machine& machine : chosen) {
    for (const json::value& service : machine.services) {
      const bool files = str(service, "kind") == "files";
      const std::string state = files ? "stored" : str(service, "state");
      const std::string note = str(service, "note");
      if (state == "down" && !note.empty())
        notes.push_back(
            fmt::format("{}: {} is down: {}", shown_name(machine), printable(str(service, "name")), printable(note)));
      const json::array models = models_of(service);
      ++rows;
      if (models.empty())
        table.row({shown_name(machine), or_dash(str(service, "name")), state, "-", "-", "-", "-", "-", "-", "-"});
      for (const json::value& model : models) {
        const bool speaks = str(model, "kind", "llm") != "checkpoint";  // a picture has no context
        table.row({shown_name(machine), or_dash(str(service, "name")), state, or_dash(str(model, "name")),
                   size_of(num(model, "bytes")), or_dash(str(model, "quantization")), tokens(model, "context"),
                   speaks ? usable(model) : "-", flag(model, "loaded") ? "yes" : "-", or_dash(str(model, "fit"))});
      }
    }
  }
  if (rows == 0) {
    fmt::print(
        "No worker has found an AI service. Ollama, llama.cpp and ComfyUI are found at their usual ports; others "
        "are named with: grange worker --service KIND=URL\n");
    return kOk;
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  for (const std::string& note : notes) fmt::print("{}\n", note);
  return kOk;
}

int show_fit(Context& context, const ModelsOptions& options) {
  Rest rest(context);
  json::array rows;
  for (const Machine& machine : machines(rest, options.workers)) {
    for (const json::value& service : machine.services) {
      for (const json::value& model : models_of(service)) {
        const std::string name = str(model, "name");
        const bool file = str(service, "kind") == "files" && name.substr(name.rfind('/') + 1) == options.model;
        if (file || worker::same_model(str(service, "kind"), name, options.model))
          rows.push_back(fit_row(machine, service, model, options.context));
      }
    }
  }
  if (context.json) {
    print_json(rows);
    return rows.empty() ? kNotFound : kOk;
  }
  if (rows.empty())
    throw Exit{kNotFound, fmt::format("No connected worker has the model {}. See which there are with `grange models "
                                      "ls`, or get it with `grange models sync {}`.",
                                      options.model, options.model)};
  Table table(
      {"WORKER", "SERVICE", "MODEL", "FIT", "CONTEXT", "WEIGHTS", "CACHE", "OTHER", "NEED", "FREE", "GOOD TO", "MOST"});
  for (std::size_t column = 4; column < 12; ++column) table.align_right(column);
  for (const json::value& row : rows) {
    const std::string worker = str(row, "worker_name").empty() ? str(row, "worker") : str(row, "worker_name");
    table.row({printable(worker), or_dash(str(row, "service")), printable(str(row, "model")), str(row, "fit"),
               asked_tokens(row, "context"), asked_bytes(row, "weights"), asked_bytes(row, "kv"),
               asked_bytes(row, "overhead"), asked_bytes(row, "need"), asked_bytes(row, "free"),
               asked_tokens(row, "good_context"), asked_tokens(row, "max_context")});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  for (const json::value& row : rows) {
    if (str(row, "reason").empty()) continue;
    const std::string worker = str(row, "worker_name").empty() ? str(row, "worker") : str(row, "worker_name");
    fmt::print("{}: {}\n", printable(worker), printable(str(row, "reason")));
  }
  return kOk;
}

}  // namespace grange::cli::models
