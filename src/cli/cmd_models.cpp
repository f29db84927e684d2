#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <set>
#include <thread>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/models_look.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"
#include "worker/services/answers.hpp"
#include "worker/services/services.hpp"

namespace grange::cli {
namespace {

using models::Machine;
using models::machines;
using models::models_of;
using models::ModelsOptions;
using models::shown_name;
using models::size_of;

struct Order {
  Machine machine;
  std::string model, job;
  json::value task = nullptr;  // as last seen
  json::value result = nullptr;
  bool over = false;
};

Order send(Rest& rest, const Machine& machine, json::object models) {
  Order out;
  out.machine = machine;
  out.model = str(models, "model");
  json::object job{{"engine", "models"},
                   {"models", std::move(models)},
                   {"labels", json::object{{std::string(worker::kWorkerLabel), machine.id}}}};
  out.job = str(rest.post("/api/jobs", job), "id");
  return out;
}

std::string bar(const json::value& progress, int width) {
  const double done = real(progress, "done"), total = real(progress, "total");
  std::string text = printable(shorten(str(progress, "text"), 30));
  if (total <= 0) return done > 0 ? fmt::format("{} {}", human_bytes(static_cast<std::uint64_t>(done)), text) : text;
  const double part = std::clamp(done / total, 0.0, 1.0);
  const auto full = static_cast<std::size_t>(part * width);
  return fmt::format("[{}{}] {:3.0f}% of {} {}", std::string(full, '#'),
                     std::string(static_cast<std::size_t>(width) - full, '.'), part * 100,
                     human_bytes(static_cast<std::uint64_t>(total)), text);
}

// One line an order, rewritten in place on a terminal.
class Lines {
 public:
  void show(const std::vector<Order>& orders) {
    if (!on_) return;
    if (shown_ > 0) fmt::print(stderr, "\x1b[{}A", shown_);
    for (const Order& one : orders) {
      const json::value* progress = field(one.task, "progress");
      std::string text = fmt::format("{}  {}  ", shown_name(one.machine), printable(one.model));
      text += one.over                                                ? str(one.task, "status")
              : progress != nullptr && !progress->is_null()           ? bar(*progress, 24)
              : one.task.is_null() || str(one.task, "status").empty() ? "waits"
                                                                      : str(one.task, "status");
      fmt::print(stderr, "\r\x1b[K{}\n", shorten(text, static_cast<std::size_t>(std::max(20, terminal_width() - 1))));
    }
    std::fflush(stderr);
    shown_ = orders.size();
  }

 private:
  bool on_ = is_tty(STDERR_FILENO);
  std::size_t shown_ = 0;
};

void follow(Rest& rest, std::vector<Order>& orders) {
  Lines lines;
  auto alive = std::chrono::steady_clock::now();
  for (std::size_t left = orders.size(); left > 0;) {
    try {
      for (Order& one : orders) {
        if (one.over) continue;
        one.task = get_task(rest, {one.job, 0});
        const std::string status = str(one.task, "status");
        if (status != "completed" && status != "failed" && status != "cancelled") continue;
        one.over = true;
        --left;
        each_result(rest, one.job, [&](const json::value& result) { one.result = result; });
      }
      alive = std::chrono::steady_clock::now();
    } catch (const Exit& exit) {
      // A server that is started again is worth waiting for.
      if (exit.code != kUnreachable || std::chrono::steady_clock::now() - alive > std::chrono::minutes(2)) throw;
    }
    lines.show(orders);
    if (left > 0) std::this_thread::sleep_for(Millis{200});
  }
}

json::object order_json(const Order& one) {
  const json::value* value = field(one.result, "value");
  return {{"worker", one.machine.id},
          {"worker_name", one.machine.name},
          {"model", one.model},
          {"job_id", one.job},
          {"status", one.over ? json::value(str(one.task, "status")) : json::value(nullptr)},
          {"message", one.over && str(one.task, "status") != "completed" ? json::value(str(one.task, "message"))
                                                                         : json::value(nullptr)},
          {"result", value != nullptr ? *value : json::value(nullptr)}};
}

// `said`: of an order that went well.
int finish(Context& context, Rest& rest, std::vector<Order>& orders, bool wait,
           const std::function<std::string(const Order&)>& said) {
  if (wait) follow(rest, orders);
  std::size_t failed = 0;
  json::array out;
  for (const Order& one : orders) {
    out.push_back(order_json(one));
    const bool good = !one.over || str(one.task, "status") == "completed";
    if (!good) ++failed;
    if (context.json) continue;
    if (!one.over) {
      fmt::print("Job {}: {} on {}\n", one.job, printable(one.model), shown_name(one.machine));
    } else if (good) {
      fmt::print("{}: {}\n", shown_name(one.machine), said(one));
    } else {
      fmt::print("{}: {} {}: {}\n", shown_name(one.machine), printable(one.model), str(one.task, "status"),
                 printable(str(one.task, "message")));
    }
  }
  if (context.json) print_json(out);
  if (!wait && !context.json) fmt::print("They go on by themselves; wait for them with --wait, or `grange wait ID`.\n");
  std::fflush(stdout);
  if (failed > 0)
    throw Exit{kFailed, fmt::format("{} of {} did not succeed.", plural(static_cast<std::int64_t>(failed), "order"),
                                    orders.size())};
  return kOk;
}

// The name of the file that a URL leads to.
std::string file_of(const std::string& url) {
  std::string path = url.substr(0, url.find_first_of("?#"));
  return path.substr(path.rfind('/') + 1);
}

int sync_models(Context& context, ModelsOptions& options) {
  const bool fetch = !options.url.empty() || !options.sha256.empty();
  if (fetch && options.models.empty() && !options.url.empty() && !file_of(options.url).empty())
    options.models.push_back(file_of(options.url));
  if (options.models.empty()) throw Exit{kUsage, "Name a model, such as llama3.2, or a file's name with --url."};
  if (fetch && options.models.size() > 1)
    throw Exit{kUsage, "--url and --sha256 are of one file: name one model with them."};
  if (!fetch && !options.folder.empty()) throw Exit{kUsage, "--folder goes with --url or --sha256."};
  Rest rest(context);
  std::vector<Machine> chosen = machines(rest, options.workers);
  if (!fetch && options.workers.empty()) {
    std::erase_if(chosen, [](const Machine& one) {
      return std::none_of(one.services.begin(), one.services.end(), [](const json::value& service) {
        return str(service, "kind") == "ollama" && str(service, "state") != "down";
      });
    });
    if (chosen.empty())
      throw Exit{kFailed, "No connected worker reaches an Ollama to pull with; start one, or give the file's --url."};
  }
  std::vector<Order> orders;
  for (const Machine& machine : chosen) {
    for (const std::string& model : options.models) {
      json::object body{{"op", fetch ? "fetch" : "pull"}, {"model", model}};
      const auto put = [&](const char* key, const std::string& value) {
        if (!value.empty()) body[key] = value;
      };
      put("url", options.url);
      put("sha256", options.sha256);
      put("folder", options.folder);
      put("service", options.service);
      orders.push_back(send(rest, machine, std::move(body)));
    }
  }
  return finish(context, rest, orders, options.wait, [](const Order& one) {
    const json::value* value = field(one.result, "value");
    const json::value got = value != nullptr ? *value : json::value(nullptr);
    if (flag(got, "was_there")) return printable(one.model) + " was there";
    std::string text = fmt::format("{} is there", printable(one.model));
    if (num(got, "bytes") > 0) text += ", " + size_of(num(got, "bytes"));
    if (num(got, "resumed_from") > 0) text += fmt::format(" ({} of it from before)", size_of(num(got, "resumed_from")));
    return text;
  });
}

int remove_model(Context& context, const ModelsOptions& options) {
  Rest rest(context);
  std::vector<Machine> chosen = machines(rest, options.workers);
  if (options.workers.empty()) {
    std::erase_if(chosen, [&](const Machine& one) {
      for (const json::value& service : one.services) {
        const std::string kind = str(service, "kind");
        if (kind != "ollama" && kind != "files") continue;
        for (const json::value& model : models_of(service)) {
          const std::string name = str(model, "name");
          if (worker::same_model(kind, name, options.model) || name.substr(name.rfind('/') + 1) == options.model)
            return false;
        }
      }
      return true;
    });
    if (chosen.empty())
      throw Exit{kNotFound, fmt::format("No connected worker has the model {} in Ollama or among its files; see "
                                        "`grange models ls`.",
                                        options.model)};
  }
  std::vector<Order> orders;
  for (const Machine& machine : chosen) {
    json::object body{{"op", "remove"}, {"model", options.model}};
    if (!options.service.empty()) body["service"] = options.service;
    if (!options.folder.empty()) body["folder"] = options.folder;
    orders.push_back(send(rest, machine, std::move(body)));
  }
  return finish(context, rest, orders, true, [](const Order& one) { return printable(one.model) + " was removed"; });
}

int reset(Context& context, const ModelsOptions& options) {
  Rest rest(context);
  std::vector<Order> orders;
  std::vector<Machine> chosen = machines(rest, options.workers);
  if (options.workers.empty()) {
    std::erase_if(chosen, [&](const Machine& one) {
      return std::none_of(one.services.begin(), one.services.end(), [&](const json::value& service) {
        return str(service, "state") != "down" && (options.service.empty() || options.service == str(service, "name"));
      });
    });
    if (chosen.empty()) throw Exit{kFailed, "No connected worker reaches such a service; see `grange models ls`."};
  }
  for (const Machine& machine : chosen) {
    json::object body{{"op", "reset"}};
    if (!options.service.empty()) body["service"] = options.service;
    orders.push_back(send(rest, machine, std::move(body)));
    orders.back().model = options.service.empty() ? "services" : options.service;
  }
  return finish(context, rest, orders, true, [](const Order& one) {
    const json::value* value = field(one.result, "value");
    if (value == nullptr) return std::string("ready again");
    std::string text;
    if (const json::value* services = field(*value, "services"); services != nullptr && services->is_array()) {
      for (const json::value& service : services->get_array()) {
        std::string models;
        if (const json::value* gone = field(service, "unloaded"); gone != nullptr && gone->is_array()) {
          for (const json::value& model : gone->get_array())
            models += (models.empty() ? "" : ", ") + (model.is_string() ? printable(model.get_string()) : "");
        }
        text += fmt::format("{}{} {}, ready after {}", text.empty() ? "" : "; ", printable(str(service, "service")),
                            models.empty() ? "had nothing to unload" : "unloaded " + models,
                            human_duration(real(service, "ready_ms") / 1000));
      }
    }
    return fmt::format("{}{}ready again after {}", text, text.empty() ? "" : "; all ",
                       human_duration(real(*value, "ready_ms") / 1000));
  });
}

CLI::Option* add_workers_option(CLI::App& sub, ModelsOptions& options, const char* text) {
  return sub.add_option("--workers", options.workers, text)->delimiter(',')->type_name("A,B")->allow_extra_args(false);
}

}  // namespace

void add_models(CLI::App& app, Context& context) {
  CLI::App* models =
      app.add_subcommand("models", "Which worker has which AI models; get, remove and judge them")->fallthrough();
  models->footer("Example:\n  grange models ls\n  grange models sync llama3.2 --wait\n  grange models fit llama3.2");
  models->require_subcommand(0, 1);
  auto options = std::make_shared<ModelsOptions>();
  const auto act = [&context](CLI::App* sub, auto work) { sub->callback([&context, work] { context.action = work; }); };

  CLI::App* ls = models->add_subcommand("ls", "List services and their models")->fallthrough();
  ls->footer("Example:\n  grange models ls --worker laptop-1");
  ls->add_option("--worker", options->worker, "Of one worker, by id or name")->type_name("W");
  act(ls, [&context, options] { return models::list_models(context, *options); });

  CLI::App* sync = models->add_subcommand("sync", "Bring models to workers: through Ollama, or a file")->fallthrough();
  sync->footer(
      "Example:\n  grange models sync llama3.2 --workers big-box,laptop-1 --wait\n"
      "  grange models sync sd.safetensors --url http://files/sd.safetensors --sha256 HEX --folder checkpoints");
  sync->add_option("MODEL", options->models, "Names as Ollama knows them, or a file's name");
  add_workers_option(*sync, *options, "To these, by id or name (default: all that can)");
  sync->add_option("--url", options->url, "A file of this address instead of a model of Ollama's")->type_name("URL");
  sync->add_option("--sha256", options->sha256, "What the file must be; without --url a blob of the farm")
      ->type_name("HEX");
  sync->add_option("--folder", options->folder, "Of the worker's model files (default: by the name's ending)")
      ->type_name("NAME");
  sync->add_option("--service", options->service, "Through the service of this name")->type_name("NAME");
  sync->add_flag("--wait", options->wait, "Show how far they are, and wait for the end");
  act(sync, [&context, options] { return sync_models(context, *options); });

  CLI::App* rm = models->add_subcommand("rm", "Remove a model from Ollama, or one of a worker's files")->fallthrough();
  rm->footer("Example:\n  grange models rm llama3.2 --workers laptop-1");
  rm->add_option("MODEL", options->model, "As `grange models ls` shows it")->required();
  add_workers_option(*rm, *options, "From these, by id or name (default: all that have it)");
  rm->add_option("--service", options->service, "Of the service of this name")->type_name("NAME");
  rm->add_option("--folder", options->folder, "A file of this folder")->type_name("NAME");
  act(rm, [&context, options] { return remove_model(context, *options); });

  CLI::App* fit = models->add_subcommand("fit", "Does a model fit, and with how long a context?")->fallthrough();
  fit->footer("Example:\n  grange models fit llama3.2 --context 32768");
  fit->add_option("MODEL", options->model, "As `grange models ls` shows it")->required();
  fit->add_option("--context", options->context, "For so many tokens (default: what the service takes by itself)")
      ->transform(whole_number())
      ->check(between(1, 100'000'000))
      ->type_name("N");
  add_workers_option(*fit, *options, "On these, by id or name (default: all that have it)");
  act(fit, [&context, options] { return models::show_fit(context, *options); });

  CLI::App* again =
      models->add_subcommand("reset", "Unload all models of workers, and wait until they are ready")->fallthrough();
  again->footer("Example:\n  grange models reset --workers big-box");
  add_workers_option(*again, *options, "Of these, by id or name (default: all)");
  again->add_option("--service", options->service, "Only the service of this name")->type_name("NAME");
  act(again, [&context, options] { return reset(context, *options); });

  models->callback([&context, options] {
    if (!context.action) context.action = [&context, options] { return models::list_models(context, *options); };
  });
}

}  // namespace grange::cli
