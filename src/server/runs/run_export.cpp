#include "server/runs/run_export.hpp"

#include <boost/json/serialize.hpp>
#include <vector>

#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

std::string cell(const json::value& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return wire::json_text(value);
  std::string text(value.get_string());
  // What begins so is a formula to a spreadsheet, and may be another machine's words.
  if (!text.empty() && std::string_view("=+-@\t\r").find(text.front()) != std::string_view::npos) text.insert(0, "'");
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

json::value cell_of(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? json::value(nullptr) : *value;
}

}  // namespace

std::string run_csv(const json::object& metadata, const json::object& summary) {
  static constexpr std::string_view kPlace[] = {"machine",  "machine_id", "phase",  "concurrency", "warmup",
                                                "repeat",   "status",     "engine", "mock_reason", "started_ms",
                                                "ended_ms", "error",      "message"};
  const json::value* list = summary.if_contains("samples");
  const json::array none;
  const json::array& samples = list != nullptr && list->is_array() ? list->get_array() : none;
  std::vector<std::string> metrics;
  for (const json::value& one : samples) {
    const json::value* figures = one.is_object() ? one.get_object().if_contains("metrics") : nullptr;
    if (figures == nullptr || !figures->is_object()) continue;
    for (const auto& [key, value] : figures->get_object()) {
      if (std::find(metrics.begin(), metrics.end(), std::string_view(key)) == metrics.end()) metrics.emplace_back(key);
    }
  }
  const json::value settings = cell_of(metadata, "settings");
  const json::value op = settings.is_object() ? cell_of(settings.get_object(), "op") : json::value(nullptr);
  std::string out = "run_id,kind,op,model";
  for (const std::string_view key : kPlace) out += "," + std::string(key);
  for (const std::string& key : metrics) out += "," + cell(json::value(key));
  out += "\r\n";
  for (const json::value& one : samples) {
    if (!one.is_object()) continue;
    const json::object& sample = one.get_object();
    out += cell(cell_of(metadata, "run_id")) + "," + cell(cell_of(metadata, "kind")) + "," + cell(op) + "," +
           cell(cell_of(metadata, "model"));
    for (const std::string_view key : kPlace) out += "," + cell(cell_of(sample, key));
    const json::value figures = cell_of(sample, "metrics");
    for (const std::string& key : metrics)
      out += "," + (figures.is_object() ? cell(cell_of(figures.get_object(), key)) : std::string());
    out += "\r\n";
  }
  return out;
}

}  // namespace grange::server
