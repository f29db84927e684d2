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

json::value at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? json::value(nullptr) : *value;
}

std::string text_of(const json::value& value) {
  if (value.is_null()) return "–";
  if (value.is_string()) return html_escape(value.get_string());
  if (value.is_double()) return fmt::format("{:.3g}", value.get_double());
  return html_escape(wire::json_text(value));
}

std::string number_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e12) return fmt::format("{:.0f}", value);
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

// Bars with their confidence interval, drawn to one scale.
std::string chart(std::string_view title, std::string_view better, const std::vector<Bar>& bars) {
  constexpr int kLeft = 190, kWidth = 520, kRow = 30;
  double most = 0;
  for (const Bar& bar : bars) most = std::max({most, bar.value.value_or(0), bar.high.value_or(0)});
  if (most <= 0) return "";
  const auto x = [most](double value) { return kLeft + std::clamp(value / most, 0.0, 1.0) * kWidth; };
  const int height = kRow * static_cast<int>(bars.size()) + 10;
  std::string out = fmt::format(
      "<figure><figcaption>{} <small>({})</small></figcaption>\n<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {} "
      "{}\" "
      "width=\"100%\" preserveAspectRatio=\"xMinYMin\">\n",
      html_escape(title), html_escape(better), html_escape(title), kLeft + kWidth + 110, height);
  int y = 5;
  for (const Bar& bar : bars) {
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, y + 17,
                       html_escape(cut_utf8(bar.name, 28)));
    if (bar.value) {
      out += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"18\"/>\n",
                         bar.mock ? "mock" : "bar", kLeft, y + 4, std::max(1.0, x(*bar.value) - kLeft));
      if (bar.low && bar.high) {
        out += fmt::format("<path class=\"ci\" d=\"M{0:.1f} {2}H{1:.1f}M{0:.1f} {3}v8M{1:.1f} {3}v8\"/>\n", x(*bar.low),
                           x(*bar.high), y + 13, y + 9);
      }
      out += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}{}</text>\n", x(std::max(*bar.value, bar.high.value_or(0))) + 6,
                         y + 17, number_text(*bar.value), bar.mock ? " (mock)" : "");
    } else {
      out += fmt::format("<text class=\"none\" x=\"{}\" y=\"{}\">{}</text>\n", kLeft, y + 17, html_escape(bar.note));
    }
    y += kRow;
  }
  return out + "</svg></figure>\n";
}

std::vector<Bar> bars_of(const json::object& machines, std::string_view metric) {
  std::vector<Bar> out;
  for (const auto& [name, value] : machines) {
    if (!value.is_object()) continue;
    const json::object& machine = value.get_object();
    Bar bar;
    bar.name = std::string(name);
    const json::value status = at(machine, "status");
    bar.note = status.is_string() ? std::string(status.get_string()) : "";
    bar.value = number_at(machine, metric);
    bar.mock = machine.contains("mock");
    const json::value phases = at(machine, "phases");
    if (phases.is_array()) {
      for (const json::value& phase : phases.get_array()) {
        if (!phase.is_object() || at(phase.get_object(), "warmup") != false) continue;
        const json::value stats = at(phase.get_object(), "stats");
        const json::value one = stats.is_object() ? at(stats.get_object(), metric) : json::value(nullptr);
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
std::string dots(std::string_view title, const json::object& machines, const json::array& samples,
                 std::string_view metric) {
  constexpr int kLeft = 190, kWidth = 520, kRow = 24;
  std::vector<std::pair<std::string, std::vector<double>>> rows;
  double most = 0, least = INFINITY;
  std::size_t points = 0;
  for (const auto& [name, machine] : machines) rows.emplace_back(std::string(name), std::vector<double>());
  for (const json::value& one : samples) {
    if (!one.is_object() || at(one.get_object(), "warmup") != false || at(one.get_object(), "status") != "completed")
      continue;
    const json::value name = at(one.get_object(), "machine"), figures = at(one.get_object(), "metrics");
    const auto value = figures.is_object() ? number_at(figures.get_object(), metric) : std::nullopt;
    if (!value || !name.is_string() || ++points > kSamplesShown) continue;
    for (auto& [machine, values] : rows) {
      if (machine == std::string_view(name.get_string())) values.push_back(*value);
    }
    most = std::max(most, *value);
    least = std::min(least, *value);
  }
  if (points < 2) return "";
  const double span = most > least ? most - least : 1;
  std::string out = fmt::format(
      "<figure><figcaption>{} <small>(each request)</small></figcaption>\n<svg role=\"img\" aria-label=\"{}\" "
      "viewBox=\"0 0 {} {}\" width=\"100%\" preserveAspectRatio=\"xMinYMin\">\n",
      html_escape(title), html_escape(title), kLeft + kWidth + 110, kRow * static_cast<int>(rows.size()) + 30);
  int y = 14;
  for (const auto& [name, values] : rows) {
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><path class=\"axis\" d=\"M{} {}h{}\"/>\n",
                       kLeft - 8, y + 4, html_escape(cut_utf8(name, 28)), kLeft, y, kWidth);
    for (const double value : values)
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{}\" r=\"3.5\"/>", kLeft + (value - least) / span * kWidth, y);
    out += "\n";
    y += kRow;
  }
  out += fmt::format("<text x=\"{}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft,
                     y + 6, number_text(least), kLeft + kWidth, y + 6, number_text(most));
  return out + "</svg></figure>\n";
}

constexpr std::string_view kStyle = R"css(
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5d6b7e;--line:#d8dee8;--bar:#2f6fb2;--mock:#b9a04a;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e7ebf2;--dim:#9aa7ba;--line:#39424f;--bar:#6ba6e6;--mock:#d2bd6b;--paper:#161b22}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}small,.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left}
td.n,th.n{text-align:right}pre{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid var(--line);padding-left:.8rem;max-height:20rem;overflow:auto}
figure{margin:1rem 0}svg text{font-size:13px;fill:var(--ink)}svg .none{fill:var(--dim)}.bar{fill:var(--bar)}.mock{fill:var(--mock)}
.ci,.axis{stroke:var(--ink);fill:none}.axis{stroke:var(--line)}circle{fill:var(--bar);fill-opacity:.6}.scroll{overflow-x:auto}
)css";

std::string said_of(const json::object& machine) {
  std::string out;
  if (machine.contains("mock")) out += "engine: mock (" + text_of(at(machine, "mock_reason")) + ") ";
  if (machine.contains("error")) {
    out += text_of(at(machine, "error")) + ": " + text_of(at(machine, "message"));
    if (machine.contains("advice")) out += " " + text_of(at(machine, "advice"));
  }
  const json::value warnings = at(machine, "warnings");
  if (warnings.is_array()) {
    for (const json::value& one : warnings.get_array()) out += (out.empty() ? "" : "; ") + text_of(one);
  }
  return out;
}

std::string machines_table(const json::object& machines, const std::vector<std::string_view>& columns) {
  std::string out =
      "<div class=\"scroll\"><table><tr><th>Machine</th><th>Status</th><th>Engine</th><th>Fit</th><th "
      "class=\"n\">OK</th>";
  for (const std::string_view one : columns) out += fmt::format("<th class=\"n\">{}</th>", html_escape(one));
  out += "<th>Notes</th></tr>\n";
  for (const auto& [name, value] : machines) {
    if (!value.is_object()) continue;
    const json::object& m = value.get_object();
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}/{}</td>",
                       html_escape(std::string_view(name)), text_of(at(m, "status")), text_of(at(m, "engine")),
                       text_of(at(m, "fit")), figure(m, "ok"), figure(m, "requests"));
    for (const std::string_view one : columns) out += fmt::format("<td class=\"n\">{}</td>", figure(m, one));
    out += "<td>" + said_of(m) + "</td></tr>\n";
  }
  return out + "</table></div>\n";
}

std::string phases_table(const json::object& machines, std::string_view metric) {
  std::string out = fmt::format(
      "<div class=\"scroll\"><table><tr><th>Machine</th><th class=\"n\">At once</th><th class=\"n\">OK</th><th "
      "class=\"n\">Requests/s</th>"
      "<th class=\"n\">{0} mean</th><th class=\"n\">95 % interval</th><th class=\"n\">p50</th><th "
      "class=\"n\">p90</th><th "
      "class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">Goodput</th></tr>\n",
      html_escape(metric));
  for (const auto& [name, value] : machines) {
    const json::value phases = value.is_object() ? at(value.get_object(), "phases") : json::value(nullptr);
    if (!phases.is_array()) continue;
    for (const json::value& one : phases.get_array()) {
      if (!one.is_object() || at(one.get_object(), "warmup") != false) continue;
      const json::object& phase = one.get_object();
      const json::value stats = at(phase, "stats");
      const json::value found = stats.is_object() ? at(stats.get_object(), metric) : json::value(nullptr);
      const json::object s = found.is_object() ? found.get_object() : json::object();
      const json::value good = at(phase, "goodput");
      out += fmt::format(
          "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}/{}</td><td class=\"n\">{}</td><td "
          "class=\"n\">{}</td><td class=\"n\">{} "
          "– {}</td>",
          html_escape(std::string_view(name)), figure(phase, "concurrency"), figure(phase, "ok"),
          figure(phase, "requests"), figure(phase, "requests_per_s"), figure(s, "mean"), figure(s, "ci_low"),
          figure(s, "ci_high"));
      for (const char* p : {"p50", "p90", "p95", "p99"}) out += fmt::format("<td class=\"n\">{}</td>", figure(s, p));
      out += fmt::format("<td class=\"n\">{}</td></tr>\n", good.is_object() ? figure(good.get_object(), "share") : "–");
    }
  }
  return out + "</table></div>\n";
}

}  // namespace

std::string run_html(const json::object& metadata, const json::object& summary) {
  const json::value kind_name = at(metadata, "kind");
  const RunKind kind =
      run_kind(kind_name.is_string() ? std::string_view(kind_name.get_string()) : "").value_or(RunKind::llm);
  const json::object machines = machines_json(summary);
  const json::value list = at(summary, "samples");
  const json::array samples = list.is_array() ? list.get_array() : json::array();
  std::vector<std::string_view> columns = {"ttft_ms", "gen_tokens", "gen_tokens_per_s", "total_ms"};
  if (kind == RunKind::compute) columns = {"primes_found", "wall_seconds", "primes_per_s"};
  if (kind == RunKind::image) columns = {"wall_seconds", "seconds_per_image"};
  const std::string title = fmt::format("Race {}", text_of(at(metadata, "run_id")));
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n<title>{}</title><style>{}</style></head><body>\n<h1>{}</h1>\n"
      "<p class=\"dim\">{} · {} · {} – {}</p>\n",
      title, kStyle, title, text_of(kind_name), text_of(at(metadata, "status")), text_of(at(metadata, "started_at")),
      text_of(at(metadata, "ended_at")));
  const json::value ranking = at(summary, "ranking");
  if (ranking.is_object()) {
    out += fmt::format("<p><strong>{}</strong></p>\n", text_of(at(ranking.get_object(), "sentence")));
  }
  out += "<h2>Machines</h2>\n" + machines_table(machines, columns);
  out += "<h2>Charts</h2>\n";
  for (const RankedBy& by : ranked_by(kind))
    out += chart(by.metric, by.higher ? "more is better" : "less is better", bars_of(machines, by.metric));
  for (const RankedBy& by : ranked_by(kind)) out += dots(by.metric, machines, samples, by.metric);
  out += "<h2>Spread</h2>\n";
  for (const RankedBy& by : ranked_by(kind)) out += phases_table(machines, by.metric);
  out += "<h2>What was asked</h2>\n<table>\n";
  for (const char* key : {"model", "settings", "repeats", "warmup", "concurrency", "seed", "timeout_seconds", "user"}) {
    if (const json::value value = at(metadata, key); !value.is_null())
      out += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", key, text_of(value));
  }
  out += "</table>\n";
  if (const json::value prompt = at(metadata, "prompt"); prompt.is_string() && !prompt.get_string().empty())
    out += fmt::format("<pre>{}</pre>\n", text_of(prompt));
  const json::value warnings = at(summary, "warnings");
  if (warnings.is_array() && !warnings.get_array().empty()) {
    out += "<h2>Warnings</h2>\n<ul>\n";
    for (const json::value& one : warnings.get_array()) out += fmt::format("<li>{}</li>\n", text_of(one));
    out += "</ul>\n";
  }
  std::string texts;
  for (const auto& [name, value] : machines) {
    const json::value text = value.is_object() ? at(value.get_object(), "text") : json::value(nullptr);
    if (text.is_string())
      texts += fmt::format("<h3>{}</h3>\n<pre>{}</pre>\n", html_escape(std::string_view(name)), text_of(text));
  }
  if (!texts.empty()) out += "<h2>Answers</h2>\n" + texts;
  return out +
         "<p class=\"dim\">Figures are those of the engines, warm-ups are not counted, mocks are not "
         "ranked.</p>\n</body></html>\n";
}

}  // namespace grange::server
