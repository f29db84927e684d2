#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/bench_farm.hpp"
#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/rest.hpp"

namespace grange::cli {
namespace {

int run(Context& context, const BenchOptions& options, const std::string& what) {
  json::object figure;
  {
    const BenchFarm farm(context, options);
    if (options.engine == "python") {
      figure = bench_python(farm, options, what);
    } else if (what == "tasks") {
      figure = bench_tasks(farm, options);
    } else if (what == "latency") {
      figure = bench_latency(farm, options);
    } else {
      figure = bench_submit(farm, options);
    }
    farm.describe(figure, options);
  }
  if (context.json) {
    print_json(figure);
    return kOk;
  }
  if (what == "tasks") {
    fmt::print("{} {} tasks in {:.3f} s: {:.0f} tasks/s, each result read back and checked\n", options.count,
               options.engine, real(figure, "seconds"), real(figure, "tasks_per_s"));
  } else if (what == "latency") {
    fmt::print("{} {} tasks, one at a time, submit to result: p50 {} ms, p90 {} ms, p99 {} ms, max {} ms\n",
               options.count, options.engine, real(figure, "p50_ms"), real(figure, "p90_ms"), real(figure, "p99_ms"),
               real(figure, "max_ms"));
  } else {
    fmt::print("An array of {} tasks, acknowledged in {} ms (median of {})\n", options.count, real(figure, "ack_ms"),
               options.repeat);
  }
  fmt::print("on {}, {} cores, commit {}, settings {}\n", str(figure, "cpu"), num(figure, "cores"),
             str(figure, "commit"), json::serialize(*field(figure, "settings")));
  return kOk;
}

void add_one(CLI::App& bench, Context& context, const std::string& what, const std::string& description,
             std::int64_t count, const std::string& example) {
  auto options = std::make_shared<BenchOptions>();
  options->count = count;
  CLI::App* sub = bench.add_subcommand(what, description)->fallthrough();
  sub->footer("Example:\n  " + example);
  sub->add_option("--count", options->count, fmt::format("Tasks (default {})", count))
      ->check(between(std::int64_t{1}, std::int64_t{10'000'000}))
      ->type_name("N");
  sub->add_option("--workers", options->workers, "Worker processes of its own farm (default 2)")
      ->check(between(1, 64))
      ->type_name("N");
  sub->add_option("--slots", options->slots, "Slots of each (default 1)")->check(between(1, 4096))->type_name("N");
  sub->add_option("--scratch", options->scratch, "Where its own farm keeps its data (default /var/tmp)")
      ->type_name("DIR");
  if (what != "submit") {
    sub->add_option("--engine", options->engine, "builtin or python")->check(CLI::IsMember({"builtin", "python"}));
    sub->add_option("--python", options->python, "Interpreter for --engine python")->type_name("PATH");
  } else {
    sub->add_option("--repeat", options->repeat, "Jobs; the median counts (default 5)")
        ->check(between(1, 1000))
        ->type_name("N");
  }
  if (what == "tasks") {
    sub->add_option("--op", options->op, "noop, or echo, which checks that each value is its argument")
        ->check(CLI::IsMember({"noop", "echo"}));
    sub->add_option("--batch", options->batch, "Tasks of one submit (default: all in one array)")
        ->check(between(std::int64_t{1}, std::int64_t{10'000'000}))
        ->type_name("N");
  } else if (what == "latency") {
    options->op = "echo";
  }
  sub->callback([&context, options, what] {
    context.action = [&context, options, what] { return run(context, *options, what); };
  });
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  CLI::App* bench =
      app.add_subcommand("bench", "Measure a farm: its own, or the one that --server names")->fallthrough();
  bench->footer("Example:\n  grange bench tasks --count 200000 --workers 2 --json");
  bench->require_subcommand(1);
  add_one(*bench, context, "tasks", "Tasks a second, durable, results read back", 100'000,
          "grange bench tasks --count 200000 --engine builtin --json");
  add_one(*bench, context, "latency", "From submit to result, one task at a time", 2'000,
          "grange bench latency --count 2000 --json");
  add_one(*bench, context, "submit", "Until a large array is acknowledged", 1'000'000,
          "grange bench submit --count 1000000 --json");
}

}  // namespace grange::cli
