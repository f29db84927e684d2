#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cmath>

#include "cli/exit.hpp"
#include "cli/parse.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct AlertsOptions {
  int limit = 20;
  std::string kind, hold, severity;
  double threshold = 0;
  bool on = false, off = false, reset = false;
  std::int64_t id = 0;
  std::string length;
  bool whole_kind = false;
};

std::string since_ms(const json::value& alert, std::string_view key) {
  const std::int64_t at = num(alert, key);
  return at == 0 ? "-" : human_duration(static_cast<double>(std::max<std::int64_t>(0, now_ms() - at)) / 1000);
}

std::string hold_text(const json::value& rule) {
  const double seconds = real(rule, "for_s");
  return seconds <= 0 ? "at once" : human_duration(seconds);
}

std::string number_text(const json::value& object, std::string_view key) {
  const json::value* value = field(object, key);
  return value != nullptr && value->is_number() ? fmt::format("{:g}", value->to_number<double>()) : "-";
}

Colour colour_of(const std::string& severity) {
  return severity == "error" ? Colour::red : severity == "warn" ? Colour::yellow : Colour::none;
}

void print_alert(const json::value& alert, bool open) {
  const bool colour = colours(STDOUT_FILENO);
  const std::string severity = str(alert, "severity");
  std::string times = open ? "for " + since_ms(alert, "began_ms") : "ended " + since_ms(alert, "ended_ms") + " ago";
  if (const std::int64_t until = num(alert, "silenced_until_ms"); until != 0)
    times += fmt::format(", silent for {}", human_duration(static_cast<double>(until - now_ms()) / 1000));
  fmt::print("{:>5}  {}  {}  {}\n", num(alert, "id"),
             paint(fmt::format("{:<5}", severity), colour_of(severity), colour),
             paint(printable(str(alert, "title")), Colour::bold, colour), paint(times, Colour::dim, colour));
  fmt::print("              {}\n", printable(str(alert, "text")));
}

int list_alerts(Context& context, const AlertsOptions& options) {
  Rest rest(context);
  const json::value answer = rest.get(fmt::format("/api/alerts?limit={}", options.limit));
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  const json::value *open = field(answer, "open"), *recent = field(answer, "recent");
  const json::array now = open == nullptr ? json::array() : list(*open);
  if (now.empty()) fmt::print("No alert is open.\n");
  for (const json::value& one : now) print_alert(one, true);
  const json::array before = recent == nullptr ? json::array() : list(*recent);
  if (!before.empty()) fmt::print("\n{}\n", paint("Ended", Colour::dim, colours(STDOUT_FILENO)));
  for (const json::value& one : before) print_alert(one, false);
  if (const json::value* hook = field(answer, "webhook"); hook != nullptr && num(*hook, "failed") > 0) {
    fmt::print(stderr, "The webhook at {} could not be told {}; the server's log says why.\n",
               printable(str(*hook, "url_host")),
               num(*hook, "failed") == 1 ? "once" : fmt::format("{} times", num(*hook, "failed")));
  }
  return kOk;
}

int list_rules(Context& context) {
  Rest rest(context);
  const json::value answer = rest.get("/api/alerts/rules");
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  Table table({"KIND", "ON", "THRESHOLD", "HOLDS FOR", "SEVERITY", "CHANGED", "WHAT"});
  const json::value* rules = field(answer, "rules");
  for (const json::value& rule : rules == nullptr ? json::array() : list(*rules)) {
    const std::string from = number_text(rule, "threshold");
    table.row({printable(str(rule, "kind")), flag(rule, "enabled") ? "on" : "off",
               from == "-" ? from : from + " " + printable(str(rule, "unit")), hold_text(rule),
               printable(str(rule, "severity")), flag(rule, "changed") ? "yes" : "", printable(str(rule, "help"))});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

void print_rule(const json::value& rule) {
  const std::string from = number_text(rule, "threshold");
  const bool at_once = real(rule, "for_s") <= 0;
  fmt::print("{} is {}{}, {}{}, as {}\n", printable(str(rule, "kind")), flag(rule, "enabled") ? "on" : "off",
             from == "-" ? "" : ": " + from + " " + printable(str(rule, "unit")), at_once ? "" : "held for ",
             hold_text(rule), printable(str(rule, "severity")));
}

int set_rule(Context& context, const AlertsOptions& options, bool with_threshold) {
  const std::string path = "/api/alerts/rules/" + escape(options.kind);
  json::object body;
  if (with_threshold && !std::isfinite(options.threshold)) throw Exit{kUsage, "--threshold must be a number."};
  if (with_threshold) body["threshold"] = options.threshold;
  if (!options.hold.empty()) body["for_s"] = static_cast<double>(take(parse_duration(options.hold)).count()) / 1000;
  if (!options.severity.empty()) body["severity"] = options.severity;
  if (options.on || options.off) body["enabled"] = options.on;
  if (options.reset && !body.empty())
    throw Exit{kUsage, "--reset goes back to the rule as it comes; leave the others out."};
  if (!options.reset && body.empty())
    throw Exit{kUsage, fmt::format("What of it? For example: grange alerts set {} --off", options.kind)};
  Rest rest(context);
  const json::value answer = options.reset ? rest.remove(path) : rest.put(path, body);
  if (context.json) {
    print_json(answer);
  } else {
    print_rule(answer);
  }
  return kOk;
}

int silence_alert(Context& context, const AlertsOptions& options) {
  const double seconds = static_cast<double>(take(parse_duration(options.length)).count()) / 1000;
  Rest rest(context);
  const json::value answer =
      rest.post(fmt::format("/api/alerts/{}/silence", options.id),
                json::object{{"for_s", seconds}, {"scope", options.whole_kind ? "kind" : "subject"}});
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  const std::string about = options.whole_kind ? fmt::format("All {} alerts", printable(str(answer, "kind")))
                                               : printable(str(answer, "title"));
  const std::int64_t until = num(answer, "silenced_until_ms");
  if (seconds <= 0) {
    // The other silence stays: of its kind, or of this one alone.
    const std::string left =
        until == 0 ? ""
                   : fmt::format("; {} silent for {} more",
                                 options.whole_kind ? "what this one is about stays"
                                                    : fmt::format("all {} alerts stay", printable(str(answer, "kind"))),
                                 human_duration(static_cast<double>(until - now_ms()) / 1000));
    fmt::print("{}: {}{}\n", about, until != 0 && !options.whole_kind ? "no silence of its own" : "told of again",
               left);
  } else {
    fmt::print("{}: silent for {}\n", about, human_duration(seconds));
  }
  return kOk;
}

}  // namespace

void add_alerts(CLI::App& app, Context& context) {
  CLI::App* top = app.add_subcommand("alerts", "What is wrong now, its rules, and silence")->fallthrough();
  top->footer(
      "Example:\n  grange alerts\n  grange alerts set disk_low --threshold 20\n  grange alerts silence 7 --for 2h");
  top->require_subcommand(0, 1);
  auto options = std::make_shared<AlertsOptions>();
  CLI::App* ls = top->add_subcommand("list", "List alerts")->alias("ls")->fallthrough();
  ls->footer("Example:\n  grange alerts ls --limit 100");
  ls->add_option("--limit", options->limit, "Of those that ended, the newest so many (default 20)")
      ->check(CLI::Range(0, 1000).description(""))
      ->type_name("N");
  CLI::App* rules = top->add_subcommand("rules", "List the rules")->fallthrough();
  rules->footer("Example:\n  grange alerts rules");
  CLI::App* set = top->add_subcommand("set", "Change a rule; what is not named stays")->fallthrough();
  set->footer(
      "Example:\n  grange alerts set job_waits --threshold 30 --severity error\n  grange alerts set farm_paused --off\n"
      "  grange alerts set disk_low --reset");
  set->add_option("KIND", options->kind, "Which, as `grange alerts rules` lists it")->required();
  CLI::Option* threshold =
      set->add_option("--threshold", options->threshold, "From where on, in the rule's unit")->type_name("N");
  set->add_option("--for", options->hold, "It must hold so long before an alert opens, such as 60s")
      ->type_name("DURATION");
  set->add_option("--severity", options->severity, "info, warn or error")->type_name("WORD");
  CLI::Option* on = set->add_flag("--on", options->on, "Turn it on");
  set->add_flag("--off", options->off, "Turn it off; its alerts end")->excludes(on);
  set->add_flag("--reset", options->reset, "Back to the rule as it comes");
  CLI::App* quiet =
      top->add_subcommand("silence", "Notify nobody of what an alert is about, for a time; 0 takes it back")
          ->fallthrough();
  quiet->footer("Example:\n  grange alerts silence 7 --for 2h\n  grange alerts silence 7 --for 0");
  quiet->add_option("ID", options->id, "The alert, as `grange alerts` lists it")->required();
  quiet->add_option("--for", options->length, "For how long, such as 2h")->required()->type_name("DURATION");
  quiet->add_flag("--kind", options->whole_kind, "All alerts of its kind, whatever they are about");
  rules->callback([&context] { context.action = [&context] { return list_rules(context); }; });
  set->callback([&context, options, threshold] {
    context.action = [&context, options, given = threshold->count() > 0] { return set_rule(context, *options, given); };
  });
  quiet->callback(
      [&context, options] { context.action = [&context, options] { return silence_alert(context, *options); }; });
  top->callback([&context, options] {
    if (context.action == nullptr) context.action = [&context, options] { return list_alerts(context, *options); };
  });
}

}  // namespace grange::cli
