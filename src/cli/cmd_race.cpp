#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <fstream>
#include <thread>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/interrupt.hpp"
#include "cli/parse.hpp"
#include "cli/race_view.hpp"
#include "cli/runs.hpp"
#include "cli/term.hpp"
#include "wire/sse.hpp"

namespace grange::cli {
namespace {

struct RaceOptions {
  std::string kind;
  std::vector<std::string> workers;
  std::vector<int> concurrency;
  int repeats = 1, warmup = 0;
  std::string timeout, out;
  std::int64_t seed = -1;
  bool force = false, allow_mock = false, preflight = false, cache = false;
  double target_ttft = 0, target_itl = 0;
  // llm
  std::string model, prompt, system, service;
  std::int64_t max_tokens = 256, num_ctx = 4096;
  double temperature = 0.2;
  // compute
  std::string op, algorithm;
  std::int64_t n = 0, threads = 0;
  // image
  std::string checkpoint, negative, sampler, scheduler, workflow;
  std::int64_t steps = 0, width = 0, height = 0, batch = 0;
  double cfg = -1;
};

json::object read_object(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Exit{kUsage, fmt::format("{} cannot be read.", path)};
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  boost::system::error_code wrong;
  json::value value = json::parse(text, wrong);
  if (wrong || !value.is_object()) throw Exit{kUsage, fmt::format("{} is no JSON object.", path)};
  return std::move(value.get_object());
}

json::object body_of(const RaceOptions& o) {
  json::object out{{"kind", o.kind}, {"repeats", o.repeats}, {"warmup", o.warmup}};
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  const auto whole = [&](const char* key, std::int64_t value) {
    if (value > 0) out[key] = value;
  };
  if (o.kind == "llm") {
    text("model", o.model);
    text("prompt", o.prompt);
    text("system", o.system);
    out["max_tokens"] = o.max_tokens;
    out["num_ctx"] = o.num_ctx;
    out["temperature"] = o.temperature;
  } else if (o.kind == "compute") {
    text("op", o.op);
    text("algorithm", o.algorithm);
    whole("n", o.n);
    whole("threads", o.threads);
  } else {
    text("checkpoint", o.checkpoint);
    text("prompt", o.prompt);
    text("negative", o.negative);
    text("sampler", o.sampler);
    text("scheduler", o.scheduler);
    whole("steps", o.steps);
    whole("width", o.width);
    whole("height", o.height);
    whole("batch", o.batch);
    if (o.cfg >= 0) out["cfg"] = o.cfg;
    if (!o.workflow.empty()) out["workflow"] = read_object(o.workflow);
  }
  text("service", o.service);
  if (!o.workers.empty()) {
    json::array list;
    for (const std::string& one : o.workers) list.emplace_back(one);
    out["workers"] = std::move(list);
  }
  if (!o.concurrency.empty()) {
    json::array list;
    for (const int one : o.concurrency) list.emplace_back(one);
    out["concurrency"] = std::move(list);
  }
  if (!o.timeout.empty()) out["timeout"] = static_cast<double>(take(parse_duration(o.timeout)).count()) / 1000;
  if (o.seed >= 0) out["seed"] = o.seed;
  if (o.force) out["force"] = true;
  if (o.allow_mock) out["allow_mock"] = true;
  if (o.cache) out["cache"] = true;
  if (o.target_ttft > 0) out["target_ttft_ms"] = o.target_ttft;
  if (o.target_itl > 0) out["target_itl_ms"] = o.target_itl;
  return out;
}

std::string words_of(const json::value& list) {
  std::string out;
  if (list.is_array()) {
    for (const json::value& one : list.get_array())
      out += (out.empty() ? "" : "; ") + (one.is_string() ? printable(one.get_string()) : std::string());
  }
  return out;
}

int show_preflight(Context& context, const json::value& checked) {
  if (context.json) {
    print_json(checked);
    return flag(checked, "ok") ? kOk : kFailed;
  }
  Table table({"MACHINE", "RACES", "FIT", "MODEL", "WORD"});
  if (const json::value* machines = field(checked, "machines"); machines != nullptr) {
    for (const json::value& m : list(*machines)) {
      const json::value* warnings = field(m, "warnings");
      std::string word = printable(str(m, "problem"));
      if (warnings != nullptr && !words_of(*warnings).empty()) word += (word.empty() ? "" : "; ") + words_of(*warnings);
      table.row({printable(str(m, "machine")), flag(m, "chosen") ? "yes" : "no", str(m, "fit"),
                 printable(str(m, "model", "-")), word});
    }
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return flag(checked, "ok") ? kOk : kFailed;
}

// Follows the run to its end, over lost connections and a server that starts again.
void follow_run(Rest& rest, const std::string& id, std::uint64_t from, RaceView& view, bool quiet) {
  using clock = std::chrono::steady_clock;
  Screen screen;
  auto drawn = clock::now(), alive = clock::now();
  std::optional<clock::time_point> cancelled;
  const auto interrupted = [&] {
    if (interrupts() == 0) return false;
    if (!cancelled) {
      cancelled = clock::now();
      try {
        rest.post("/api/runs/" + escape(id) + "/cancel", json::object{{"reason", "interrupted by its user"}});
      } catch (const Exit&) {
        // It may have ended in the same moment.
      }
    }
    return clock::now() - *cancelled > std::chrono::seconds(10);
  };
  bool gap = false;
  const wire::SseParser fresh([&](const wire::SseEvent& event) {
    boost::system::error_code wrong;
    const json::value fact = json::parse(event.data, wrong);
    if (wrong) return;
    if (event.type == "gap") {
      gap = true;
      from = static_cast<std::uint64_t>(num(fact, "next"));
      return;
    }
    const std::int64_t number = num(fact, "event", -1);
    if (number >= 0) from = static_cast<std::uint64_t>(number) + 1;
    const json::value* data = field(fact, "data");
    if (data == nullptr) return;
    const std::string text = view.heard(event.type, *data);
    if (!screen.on()) {
      if (!quiet && !text.empty()) write_all(STDERR_FILENO, text);
    } else if (clock::now() - drawn > std::chrono::milliseconds(50) || view.over()) {
      drawn = clock::now();
      screen.show(view);
    }
  });
  while (!view.over()) {
    wire::SseParser parser = fresh;
    const auto result = rest.stream(
        fmt::format("/api/events?topics=run:{}&from={}", escape(id), from),
        [&](std::string_view bytes) {
          alive = clock::now();
          parser.feed(bytes);
        },
        [&] { return view.over() || gap || interrupted(); });
    if (view.over() || (cancelled && clock::now() - *cancelled > std::chrono::seconds(10))) break;
    if (result.ok() && result->status >= 400 && result->status < 500) rest.fail_with(*result);
    try {  // what was missed may have been its end
      if (str(rest.get("/api/runs/" + escape(id)), "status") != "running") break;
      alive = clock::now();
    } catch (const Exit& exit) {
      if (exit.code != kUnreachable || clock::now() - alive > std::chrono::minutes(2)) throw;
    }
    gap = false;
    std::this_thread::sleep_for(Millis{200});
  }
  if (screen.on()) screen.show(view);
}

int race(Context& context, const RaceOptions& options) {
  const json::object body = body_of(options);
  const auto dot = options.out.rfind('.');
  const std::string format = options.out.empty() ? "" : dot == std::string::npos ? "html" : options.out.substr(dot + 1);
  if (!format.empty() && format != "html" && format != "csv" && format != "json")
    throw Exit{kUsage, "--out FILE is a report by its ending: .html, .csv or .json"};
  // Better now than after the race.
  if (!options.out.empty() && options.out != "-" && !std::ofstream(options.out, std::ios::app))
    throw Exit{kUsage, fmt::format("{} cannot be written.", options.out)};
  Rest rest(context);
  if (options.preflight) return show_preflight(context, rest.post("/api/runs/preflight", body));
  count_interrupts();
  const json::value started = rest.post("/api/runs", body);
  const std::string id = str(started, "run_id");
  std::vector<std::string> machines;
  if (const json::value* checked = field(started, "preflight")) {
    if (const json::value* warnings = field(*checked, "warnings"); warnings != nullptr) {
      for (const json::value& one : list(*warnings))
        if (one.is_string()) fmt::print(stderr, "grange: {}\n", printable(one.get_string()));
    }
    if (const json::value* all = field(*checked, "machines"); all != nullptr) {
      for (const json::value& m : list(*all)) {
        if (!flag(m, "chosen")) continue;
        machines.push_back(str(m, "machine"));
        const json::value* warnings = field(m, "warnings");
        std::string word = warnings == nullptr ? "" : words_of(*warnings);
        if (const std::string problem = printable(str(m, "problem")); !problem.empty())
          word = problem + (word.empty() ? "" : "; ") + word;
        if (!word.empty()) fmt::print(stderr, "grange: {}: {}\n", printable(str(m, "machine")), word);
      }
    }
  }
  RaceView view(machines);
  follow_run(rest, id, static_cast<std::uint64_t>(num(started, "next_event")), view, context.json);
  json::value run = rest.get(fmt::format("/api/runs/{}?wait=10", escape(id)), Millis{30'000});
  while (str(run, "status") == "running" && interrupts() == 0)
    run = rest.get(fmt::format("/api/runs/{}?wait=30", escape(id)), Millis{60'000});
  if (!options.out.empty()) save_export(rest, id, format, options.out);
  show_run(context, run);
  return interrupts() > 0 ? static_cast<int>(kInterrupted) : verdict_of(run);
}

void add_common(CLI::App& sub, const std::shared_ptr<RaceOptions>& o) {
  sub.add_option("--workers", o->workers, "Ids or names, with commas between (default: all that can)")
      ->delimiter(',')
      ->type_name("A,B")
      ->allow_extra_args(false);
  sub.add_option("--repeats", o->repeats, "Requests on each machine that count (default 1)")
      ->transform(whole_number())
      ->check(between(1, 10'000))
      ->type_name("N");
  sub.add_option("--warmup", o->warmup, "Requests before, that do not count (default 0)")
      ->check(between(0, 10'000))
      ->type_name("N");
  sub.add_option("--concurrency", o->concurrency, "Requests at once; several with commas between: one phase each")
      ->delimiter(',')
      ->check(between(1, 1024))
      ->type_name("C,…")
      ->allow_extra_args(false);
  sub.add_option("--timeout", o->timeout, "Time limit of one request")->type_name("DURATION");
  sub.add_option("--seed", o->seed, "The first seed; the same on all machines")
      ->check(between(std::int64_t{0}, std::int64_t{4'294'967'295}))
      ->type_name("N");
  sub.add_option("--out", o->out, "Store a report: FILE.html, FILE.csv or FILE.json")->type_name("FILE");
  sub.add_flag("--force", o->force, "Also on machines that would be left out");
  sub.add_flag("--preflight", o->preflight, "Only say what each machine could do of it");
}

}  // namespace

void add_race(CLI::App& app, Context& context) {
  CLI::App* top = app.add_subcommand("race", "The same work on several machines at once, compared")->fallthrough();
  top->footer(
      "Example:\n  grange race compute --n 100000000 --repeats 5\n"
      "  grange race llm --model llama3.2 --prompt \"Why is the sky blue?\" --repeats 3 --out race.html");
  top->require_subcommand(1);
  const auto make = [&](const char* kind, const char* what, const char* footer) {
    auto options = std::make_shared<RaceOptions>();
    options->kind = kind;
    CLI::App* sub = top->add_subcommand(kind, what)->fallthrough();
    sub->footer(footer);
    sub->callback([&context, options] { context.action = [&context, options] { return race(context, *options); }; });
    return std::pair(sub, options);
  };
  const auto count = [](CLI::App* sub, const char* name, std::int64_t& to, std::int64_t most, const char* what) {
    sub->add_option(name, to, what)->transform(whole_number())->check(between(std::int64_t{1}, most))->type_name("N");
  };
  {
    auto [sub, o] =
        make("llm", "One prompt to a language model on every machine",
             "Example:\n  grange race llm --model llama3.2 --prompt \"Tell me a story\" --repeats 3 --warmup 1");
    sub->add_option("--model", o->model, "The model, as the machines call it")->required()->type_name("NAME");
    sub->add_option("--prompt", o->prompt, "What each machine is asked")->required()->type_name("TEXT");
    sub->add_option("--system", o->system, "The system prompt")->type_name("TEXT");
    count(sub, "--max-tokens", o->max_tokens, 1'000'000, "At most so many tokens (default 256)");
    count(sub, "--num-ctx", o->num_ctx, 100'000'000, "Tokens of context (default 4096)");
    sub->add_option("--temperature", o->temperature, "Default 0.2")->check(between(0.0, 10.0))->type_name("T");
    sub->add_option("--service", o->service, "Only services of this name");
    sub->add_flag("--allow-mock", o->allow_mock, "Let a mock answer where there is no service or no model");
    sub->add_flag("--cache", o->cache,
                  "Let llama.cpp take the prompt from its cache (else each request reads it anew; Ollama always may)");
    sub->add_option("--target-ttft-ms", o->target_ttft, "Goodput: the first token within so long")
        ->check(above_zero())
        ->type_name("MS");
    sub->add_option("--target-itl-ms", o->target_itl, "Goodput: a token every so long")
        ->check(above_zero())
        ->type_name("MS");
    add_common(*sub, o);
  }
  {
    auto [sub, o] =
        make("compute", "A sieve, or another measure of the machine itself, on every machine",
             "Example:\n  grange race compute --n 1000000000 --algorithm segmented_sieve --threads 4 --repeats 5");
    count(sub, "--n", o->n, INT64_MAX, "Primes up to N (default 50000000); gemm: the side; memory, disk: bytes");
    sub->add_option("--algorithm", o->algorithm,
                    "Of primes: segmented_sieve (default), simple_sieve, trial_division or primesieve; of gemm: "
                    "double (default) or single")
        ->type_name("A");
    sub->add_option("--op", o->op, "primes (default), gemm (GFLOP/s), memory (GB/s) or disk (MB/s)");
    count(sub, "--threads", o->threads, 4096, "Threads (default: all cores of the machine)");
    add_common(*sub, o);
  }
  {
    auto [sub, o] =
        make("image", "One picture on every machine",
             "Example:\n  grange race image --checkpoint sdxl.safetensors --prompt \"a lighthouse\" --steps 20");
    sub->add_option("--checkpoint", o->checkpoint, "The checkpoint, as ComfyUI calls it")->type_name("NAME");
    sub->add_option("--prompt", o->prompt, "What is painted")->type_name("TEXT");
    sub->add_option("--negative", o->negative, "And what is not")->type_name("TEXT");
    count(sub, "--steps", o->steps, 1000, "Steps (default 20)");
    count(sub, "--width", o->width, 16'384, "Default 512");
    count(sub, "--height", o->height, 16'384, "Default 512");
    count(sub, "--batch", o->batch, 64, "Pictures of one request (default 1)");
    sub->add_option("--cfg", o->cfg, "Default 7")->check(between(0.0, 100.0))->type_name("X");
    sub->add_option("--sampler", o->sampler, "Default euler");
    sub->add_option("--scheduler", o->scheduler, "Default normal");
    sub->add_option("--workflow", o->workflow, "ComfyUI's own graph (API form) instead")->type_name("FILE");
    sub->add_option("--service", o->service, "Only services of this name");
    sub->add_flag("--allow-mock", o->allow_mock, "Let a mock answer where there is no service or no checkpoint");
    add_common(*sub, o);
  }
}

}  // namespace grange::cli
