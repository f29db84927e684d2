// The report of a run: one HTML page.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <optional>

#include "server/runs/run_export.hpp"
#include "server/runs/run_summary.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kSamplesShown = 2000;

json::value value_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? json::value(nullptr) : *value;
}

std::string shown_text(const json::value& value) {
  if (value.is_null()) return "–";
  if (value.is_string()) return html_escape(value.get_string());
  if (value.is_double()) return fmt::format("{:.3g}", value.get_double());
  return html_escape(wire::json_text(value));
}

std::string number_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e12) return fmt::format("{:.0f}", value);
  if (std::abs(value) >= 10'000) return fmt::format("{:.0f}", value);
  return std::abs(value) >= 100 ? fmt::format("{:.1f}", value) : fmt::format("{:.3g}", value);
}

std::string figure(const json::object& from, std::string_view key) {
  const auto value = number_at(from, key);
  return value ? number_text(*value) : "–";
}

struct Bar {
  std::string name, note;
  std::optional<double> value, low, high;
  bool mock = false;
};

// Words are HTML, so that they stay as large on a narrow screen; only what has a length is drawn, in per cent of its
// row.
std::string chart_head(std::string_view metric, std::string_view word) {
  return fmt::format("<figure><figcaption>{} <small>({})</small></figcaption>\n", html_escape(label_of(metric)),
                     html_escape(word));
}
std::string chart_row(std::string_view name, const std::string& drawing, const std::string& figure_text) {
  return fmt::format("<div class=\"row\"><span class=\"who\">{}</span>{}<span class=\"val\">{}</span></div>\n",
                     html_escape(name), drawing, figure_text);
}
constexpr std::string_view kNoDrawing = "<span class=\"none\"></span>";

// Bars with their confidence interval, drawn to one scale.
std::string chart(std::string_view metric, bool higher, const std::vector<Bar>& bars) {
  double most = 0;
  for (const Bar& bar : bars) most = std::max({most, bar.value.value_or(0), bar.high.value_or(0)});
  if (most <= 0) return "";
  const auto x = [most](double value) { return std::clamp(value / most, 0.0, 1.0) * 100; };
  std::string out = chart_head(metric, higher ? "more is better" : "less is better");
  for (const Bar& bar : bars) {
    if (!bar.value) {
      out += chart_row(bar.name, std::string(kNoDrawing), html_escape(bar.note));
      continue;
    }
    std::string drawing = fmt::format(
        "<svg role=\"img\" aria-label=\"{0}: {1}\" width=\"100%\" height=\"20\"><rect class=\"{2}\" y=\"2\" "
        "width=\"{3:.2f}%\" height=\"16\" rx=\"2\"/>",
        html_escape(bar.name), number_text(*bar.value), bar.mock ? "mock" : "bar", std::max(0.3, x(*bar.value)));
    if (bar.low && bar.high && *bar.high > *bar.low)
      drawing += fmt::format(
          "<line class=\"ci\" x1=\"{0:.2f}%\" x2=\"{1:.2f}%\" y1=\"10\" y2=\"10\"/><line class=\"ci\" x1=\"{0:.2f}%\" "
          "x2=\"{0:.2f}%\" y1=\"6\" y2=\"14\"/><line class=\"ci\" x1=\"{1:.2f}%\" x2=\"{1:.2f}%\" y1=\"6\" y2=\"14\"/>",
          x(*bar.low), x(*bar.high));
    out += chart_row(bar.name, drawing + "</svg>", number_text(*bar.value) + (bar.mock ? " (mock)" : ""));
  }
  return out + "</figure>\n";
}

std::vector<Bar> bars_of(const json::object& machines, std::string_view metric) {
  std::vector<Bar> out;
  for (const auto& [name, value] : machines) {
    if (!value.is_object()) continue;
    const json::object& machine = value.get_object();
    Bar bar;
    bar.name = std::string(name);
    const json::value status = value_at(machine, "status");
    bar.note = status.is_string() ? std::string(status.get_string()) : "";
    bar.value = number_at(machine, metric);
    bar.mock = machine.contains("mock");
    const json::value phases = value_at(machine, "phases");
    if (phases.is_array()) {
      for (const json::value& phase : phases.get_array()) {
        if (!phase.is_object() || value_at(phase.get_object(), "warmup") != false) continue;
        const json::value stats = value_at(phase.get_object(), "stats");
        const json::value one = stats.is_object() ? value_at(stats.get_object(), metric) : json::value(nullptr);
        if (one.is_object()) {
          bar.low = number_at(one.get_object(), "ci_low");
          bar.high = number_at(one.get_object(), "ci_high");
        }
        break;
      }
    }
    out.push_back(std::move(bar));
  }
  return out;
}

// Each request of a metric as a point, machine by machine.
std::string dots(const json::object& machines, const json::array& samples, std::string_view metric) {
  std::vector<std::pair<std::string, std::vector<double>>> rows;
  double most = 0, least = INFINITY;
  std::size_t points = 0;
  for (const auto& [name, machine] : machines) rows.emplace_back(std::string(name), std::vector<double>());
  for (const json::value& one : samples) {
    if (!one.is_object() || value_at(one.get_object(), "warmup") != false ||
        value_at(one.get_object(), "status") != "completed")
      continue;
    const json::value name = value_at(one.get_object(), "machine"), figures = value_at(one.get_object(), "metrics");
    const auto value = figures.is_object() ? number_at(figures.get_object(), metric) : std::nullopt;
    if (!value || !name.is_string() || ++points > kSamplesShown) continue;
    for (auto& [machine, values] : rows) {
      if (machine == std::string_view(name.get_string())) values.push_back(*value);
    }
    most = std::max(most, *value);
    least = std::min(least, *value);
  }
  if (points < 2) return "";
  const double span = most - least;
  std::string out = chart_head(metric, fmt::format("each request, {} to {}", number_text(least), number_text(most)));
  for (const auto& [name, values] : rows) {
    if (values.empty()) continue;  // the bars above say why
    std::string drawing = fmt::format(
        "<svg role=\"img\" aria-label=\"{}: {} requests\" width=\"100%\" height=\"20\"><line class=\"axis\" x1=\"0\" "
        "x2=\"100%\" y1=\"10\" y2=\"10\"/>",
        html_escape(name), values.size());
    // Half a dot of room at both ends.
    for (const double value : values)
      drawing +=
          fmt::format("<circle cx=\"{:.2f}%\" cy=\"10\" r=\"4\"/>", span > 0 ? 1 + (value - least) / span * 98 : 50.0);
    out += chart_row(name, drawing + "</svg>", fmt::format("{} requests", values.size()));
  }
  return out + "</figure>\n";
}

constexpr std::string_view kStyle = R"css(
:root{color-scheme:light dark;--ink:#1c2430;--dim:#566375;--line:#d8dee8;--bar:#2f6fb2;--mock:#94761a;--good:#1b7340;--bad:#b3261e;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e7ebf2;--dim:#9aa7ba;--line:#39424f;--bar:#6ba6e6;--mock:#d2bd6b;--good:#6fcf97;--bad:#ff9088;--paper:#161b22}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;line-height:1.25;margin-bottom:.2rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
small,.dim{color:var(--dim)}.verdict{font-size:1.05rem;font-weight:600}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{border-bottom:1px solid var(--line);padding:.35rem .6rem;text-align:left;vertical-align:top}
thead th,.n{white-space:nowrap}tbody th{font-weight:600;min-width:7rem;overflow-wrap:anywhere}.n{text-align:right}
.completed{color:var(--good)}.failed,.lost,.timeout,.cancelled{color:var(--bad)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid var(--line);padding-left:.8rem;max-height:20rem;overflow:auto}
dl.notes dt{font-weight:600}dl.notes dd{margin:0 0 .6rem}ul{padding-left:1.2rem}.asked th{width:11rem}.asked td{overflow-wrap:anywhere}
figure{margin:1.2rem 0}figcaption{margin-bottom:.2rem;font-weight:600}figcaption small{font-weight:400}
.row{display:grid;grid-template-columns:13rem 1fr 6rem;gap:0 .6rem;align-items:center}.who{overflow-wrap:anywhere;line-height:1.2;padding:.2rem 0}.val{font-variant-numeric:tabular-nums}
svg{display:block;overflow:visible}.bar{fill:var(--bar)}.mock{fill:var(--mock)}.ci{stroke:var(--ink);stroke-width:1.5}.axis{stroke:var(--line)}circle{fill:var(--bar);fill-opacity:.6}
.scroll{overflow-x:auto}
@media(max-width:40rem){body{margin:1rem auto}.row{grid-template-columns:1fr 5.5rem}.who{grid-column:1/-1;padding:.3rem 0 0}.asked th{width:7.5rem}}
@media print{body{max-width:none}pre{max-height:none}figure,tr{break-inside:avoid}}
)css";

std::string said_of(const json::object& machine) {
  std::string out;
  if (machine.contains("mock")) out += "engine: mock (" + shown_text(value_at(machine, "mock_reason")) + ") ";
  if (machine.contains("error")) {
    out += shown_text(value_at(machine, "error")) + ": " + shown_text(value_at(machine, "message"));
    if (machine.contains("advice")) out += " " + shown_text(value_at(machine, "advice"));
  }
  const json::value warnings = value_at(machine, "warnings");
  if (warnings.is_array()) {
    for (const json::value& one : warnings.get_array()) out += (out.empty() ? "" : "; ") + shown_text(one);
  }
  return out;
}

std::string machines_table(const json::object& machines, const std::vector<RunColumn>& columns, RunKind kind) {
  // A sieve has no model that could fit; of a model the page says at its top which.
  const char* second = kind == RunKind::compute ? "What" : kind == RunKind::llm ? "Fit" : "";
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>Machine</th><th>Status</th><th>Engine</th>";
  if (*second != 0) out += fmt::format("<th>{}</th>", second);
  out += "<th class=\"n\">OK</th>";
  for (const RunColumn& one : columns)
    out += fmt::format("<th class=\"n\" title=\"{}\">{}</th>", html_escape(one.metric), html_escape(one.label));
  out += "</tr></thead><tbody>\n";
  for (const auto& [name, value] : machines) {
    if (!value.is_object()) continue;
    const json::object& m = value.get_object();
    const std::string status = shown_text(value_at(m, "status"));
    out += fmt::format("<tr><th scope=\"row\">{0}</th><td class=\"{1}\">{1}</td><td>{2}</td>",
                       html_escape(std::string_view(name)), status, shown_text(value_at(m, "engine")));
    if (kind == RunKind::compute) {
      const json::value algorithm = value_at(m, "algorithm");
      out += fmt::format("<td>{}{}</td>", shown_text(value_at(m, "op")),
                         algorithm.is_null() ? "" : " " + shown_text(algorithm));
    } else if (*second != 0) {
      out += fmt::format("<td>{}</td>", shown_text(value_at(m, "fit")));
    }
    out += fmt::format("<td class=\"n\">{}/{}</td>", figure(m, "ok"), figure(m, "requests"));
    for (const RunColumn& one : columns) out += fmt::format("<td class=\"n\">{}</td>", figure(m, one.metric));
    out += "</tr>\n";
  }
  out += "</tbody></table></div>\n";
  std::string notes;
  for (const auto& [name, value] : machines) {
    const std::string said = value.is_object() ? said_of(value.get_object()) : std::string();
    if (!said.empty()) notes += fmt::format("<dt>{}</dt><dd>{}</dd>\n", html_escape(std::string_view(name)), said);
  }
  return notes.empty() ? out : out + "<dl class=\"notes\">\n" + notes + "</dl>\n";
}

bool has_goodput(const json::object& machines) {
  return std::any_of(machines.begin(), machines.end(), [](const auto& one) {
    const json::value phases =
        one.value().is_object() ? value_at(one.value().get_object(), "phases") : json::value(nullptr);
    return phases.is_array() &&
           std::any_of(phases.get_array().begin(), phases.get_array().end(),
                       [](const auto& phase) { return phase.is_object() && phase.get_object().contains("goodput"); });
  });
}

std::string phases_table(const json::object& machines, std::string_view metric, bool goodput) {
  std::string out = fmt::format(
      "<h3>{}</h3>\n<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>Machine</th><th class=\"n\">At "
      "once</th><th class=\"n\">OK</th><th class=\"n\">Requests/s</th><th class=\"n\">Mean</th><th class=\"n\">95 % "
      "interval</th><th class=\"n\">p50</th><th class=\"n\">p90</th><th class=\"n\">p95</th><th "
      "class=\"n\">p99</th>{}</tr></thead><tbody>\n",
      html_escape(label_of(metric)), goodput ? "<th class=\"n\">Goodput</th>" : "");
  for (const auto& [name, value] : machines) {
    const json::value phases = value.is_object() ? value_at(value.get_object(), "phases") : json::value(nullptr);
    if (!phases.is_array()) continue;
    for (const json::value& one : phases.get_array()) {
      if (!one.is_object() || value_at(one.get_object(), "warmup") != false) continue;
      const json::object& phase = one.get_object();
      const json::value stats = value_at(phase, "stats");
      const json::value found = stats.is_object() ? value_at(stats.get_object(), metric) : json::value(nullptr);
      const json::object s = found.is_object() ? found.get_object() : json::object();
      const bool sure = number_at(s, "ci_low") && number_at(s, "ci_high");
      out += fmt::format(
          "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}/{}</td><td class=\"n\">{}</td><td "
          "class=\"n\">{}</td><td class=\"n\">{}</td>",
          html_escape(std::string_view(name)), figure(phase, "concurrency"), figure(phase, "ok"),
          figure(phase, "requests"), figure(phase, "requests_per_s"), figure(s, "mean"),
          sure ? figure(s, "ci_low") + " – " + figure(s, "ci_high") : "–");
      for (const char* p : {"p50", "p90", "p95", "p99"}) out += fmt::format("<td class=\"n\">{}</td>", figure(s, p));
      if (goodput) {
        const json::value good = value_at(phase, "goodput");
        const auto share = good.is_object() ? number_at(good.get_object(), "share") : std::nullopt;
        out += fmt::format("<td class=\"n\">{}</td>", share ? fmt::format("{:.0f} %", *share * 100) : "–");
      }
      out += "</tr>\n";
    }
  }
  return out + "</tbody></table></div>\n";
}

// "2026-01-05 10:00:00 UTC, 4.2 s" of what the API writes.
std::string when_of(const json::object& metadata) {
  const json::value began = value_at(metadata, "started_at");
  if (!began.is_string() || began.get_string().size() < 19) return shown_text(began);
  std::string out(began.get_string().data(), 19);
  out[10] = ' ';
  return html_escape(out) + " UTC";
}

std::string asked_table(const json::object& metadata) {
  std::string out = "<table class=\"asked\"><tbody>\n";
  const auto row = [&](std::string_view key, const json::value& value) {
    if (value.is_null() || (value.is_string() && value.get_string().empty())) return;
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", html_escape(key), shown_text(value));
  };
  for (const char* key : {"model", "system"}) row(key, value_at(metadata, key));
  if (const json::value settings = value_at(metadata, "settings"); settings.is_object()) {
    for (const auto& [key, value] : settings.get_object()) row(key, value);
  }
  for (const char* key : {"repeats", "warmup", "concurrency", "seed", "timeout_seconds", "target_ttft_ms",
                          "target_itl_ms", "user", "started_at", "ended_at"})
    row(key, value_at(metadata, key));
  return out + "</tbody></table>\n";
}

}  // namespace

std::string run_html(const json::object& metadata, const json::object& summary) {
  const json::value kind_name = value_at(metadata, "kind");
  const RunKind kind =
      run_kind(kind_name.is_string() ? std::string_view(kind_name.get_string()) : "").value_or(RunKind::llm);
  const json::object machines = machines_json(summary);
  const json::value list = value_at(summary, "samples");
  const json::array samples = list.is_array() ? list.get_array() : json::array();
  const json::value settings = value_at(metadata, "settings");
  const json::value said = settings.is_object() ? value_at(settings.get_object(), "op") : json::value(nullptr);
  const std::string op = said.is_string() ? std::string(said.get_string()) : std::string();
  const std::vector<RunColumn> columns = run_columns(name(kind), op);
  const std::vector<RankedBy> ranked = ranked_by(name(kind), op);
  const json::value what = value_at(metadata, "what");
  const std::string title = fmt::format("Race {}", shown_text(value_at(metadata, "run_id")));
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n<title>{}</title><style>{}</style></head><body>\n<h1>{}</h1>\n"
      "<p class=\"dim\">{} · {} · {}</p>\n",
      title, kStyle, title, what.is_string() && !what.get_string().empty() ? shown_text(what) : shown_text(kind_name),
      shown_text(value_at(metadata, "status")), when_of(metadata));
  const json::value ranking = value_at(summary, "ranking");
  if (ranking.is_object()) {
    out += fmt::format("<p class=\"verdict\">{}</p>\n", shown_text(value_at(ranking.get_object(), "sentence")));
  }
  out += "<h2>Machines</h2>\n" + machines_table(machines, columns, kind);
  out += "<h2>Charts</h2>\n";
  for (const RankedBy& by : ranked) out += chart(by.metric, by.higher, bars_of(machines, by.metric));
  for (const RankedBy& by : ranked) out += dots(machines, samples, by.metric);
  out += "<h2>Spread</h2>\n";
  const bool goodput = has_goodput(machines);
  for (const RankedBy& by : ranked) out += phases_table(machines, by.metric, goodput);
  out += "<h2>What was asked</h2>\n" + asked_table(metadata);
  if (const json::value prompt = value_at(metadata, "prompt"); prompt.is_string() && !prompt.get_string().empty())
    out += fmt::format("<pre>{}</pre>\n", shown_text(prompt));
  const json::value warnings = value_at(summary, "warnings");
  if (warnings.is_array() && !warnings.get_array().empty()) {
    out += "<h2>Warnings</h2>\n<ul>\n";
    for (const json::value& one : warnings.get_array()) out += fmt::format("<li>{}</li>\n", shown_text(one));
    out += "</ul>\n";
  }
  std::string texts;
  for (const auto& [name, value] : machines) {
    const json::value text = value.is_object() ? value_at(value.get_object(), "text") : json::value(nullptr);
    if (text.is_string())
      texts += fmt::format("<h3>{}</h3>\n<pre>{}</pre>\n", html_escape(std::string_view(name)), shown_text(text));
  }
  if (!texts.empty()) out += "<h2>Answers</h2>\n" + texts;
  return out +
         "<p class=\"dim\">Figures are those of the engines, warm-ups are not counted, mocks are not "
         "ranked.</p>\n</body></html>\n";
}

}  // namespace grange::server
