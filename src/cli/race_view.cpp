#include "cli/race_view.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

#include "base/utf8.hpp"
#include "cli/follow.hpp"
#include "cli/term.hpp"
#include "server/runs/run_columns.hpp"

namespace grange::cli {
namespace {

constexpr std::size_t kTail = 8192;
constexpr int kGap = 3, kNarrowest = 24;

std::string figure(const json::value& from, std::string_view key) {
  const json::value* value = field(from, key);
  if (value == nullptr || !value->is_number()) return "-";
  const double n = value->to_number<double>();
  if (n == std::floor(n) && std::abs(n) < 1e15) return fmt::format("{:.0f}", n);
  return fmt::format("{:.{}f}", n, std::abs(n) >= 100 ? 1 : 3);
}

std::string figures_of(const json::value& payload) {
  std::string out;
  const auto add = [&](std::string_view key, std::string_view label, std::string_view unit) {
    if (const json::value* value = field(payload, key); value != nullptr && value->is_number())
      out += fmt::format("{}{}{}{}{}", out.empty() ? "" : "  ", label, label.empty() ? "" : " ", figure(payload, key),
                         unit);
  };
  add("ttft_ms", "TTFT", " ms");
  add("gen_tokens_per_s", "", " t/s");
  add("total_ms", "total", " ms");
  add("primes_found", "primes", "");
  add("gflops", "", " GFLOP/s");
  add("gb_per_s_triad", "triad", " GB/s");
  add("mb_per_s_write", "write", " MB/s");
  add("mb_per_s_read", "read", " MB/s");
  add("seconds_per_image", "", " s/image");
  if (field(payload, "ttft_ms") == nullptr) add("wall_seconds", "", " s");
  if (str(payload, "engine") == "mock") out += "  engine: mock (" + printable(str(payload, "mock_reason")) + ")";
  if (!flag(payload, "ok")) {
    const std::string error = str(payload, "error"), message = str(payload, "message");
    out += fmt::format("{}{}{}", out.empty() ? "" : "  ", printable(error),
                       message.empty() ? "" : ": " + printable(message));
  }
  return out;
}

// "primes segmented_sieve 1e9": the op, how, and of how much.
std::string what_it_did(const json::value& machine) {
  std::string out = str(machine, "op");
  if (const std::string algorithm = str(machine, "algorithm"); !algorithm.empty()) out += " " + algorithm;
  if (const std::int64_t n = num(machine, "n"); n > 0)
    out += " " + (out.starts_with("memory") || out.starts_with("disk") ? human_bytes(static_cast<std::uint64_t>(n))
                                                                       : human_count(static_cast<std::uint64_t>(n)));
  return out.empty() ? "-" : out;
}

// What an event adds to the picture of its machine.
std::string words(const std::string& type, const json::value& payload) {
  if (type == "llm_token") return str(payload, "text");
  if (type == "compute_line") return str(payload, "line") + "\n";
  if (type == "image_progress") {
    const std::int64_t done = num(payload, "done", num(payload, "value")),
                       total = num(payload, "total", num(payload, "max"));
    if (total > 0) return fmt::format("step {} of {}\n", done, total);
    const std::string text = str(payload, "text");
    return text.empty() ? "" : text + "\n";
  }
  return "";
}

std::string visible(std::string_view text) {
  std::string out;
  std::size_t start = 0;
  for (std::size_t end; (end = text.find('\n', start)) != std::string_view::npos; start = end + 1)
    out += printable(text.substr(start, end - start)) + "\n";
  return out + printable(text.substr(start));
}

std::vector<std::string> wrapped(std::string_view text, std::size_t width) {
  std::vector<std::string> out(1);
  std::size_t used = 0;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t n = 1;
    while (i + n < text.size() && (static_cast<unsigned char>(text[i + n]) & 0xc0) == 0x80) ++n;
    if (text[i] == '\n' || used == width) {
      out.emplace_back();
      used = 0;
    }
    if (text[i] != '\n') {
      out.back().append(text.substr(i, n));
      ++used;
    }
    i += n;
  }
  if (out.back().empty()) out.pop_back();
  return out;
}

std::string padded(std::string text, std::size_t width) {
  text = shorten(text, width);
  const std::size_t have = columns(text);
  return text + std::string(width > have ? width - have : 0, ' ');
}

}  // namespace

RaceView::RaceView(std::vector<std::string> machines) {
  for (std::string& name : machines) {
    machines_.emplace_back();
    machines_.back().name = std::move(name);
  }
}

RaceView::Machine* RaceView::of(const json::value& data) {
  const std::string name = str(data, "machine");
  const auto it = std::find_if(machines_.begin(), machines_.end(), [&](const Machine& m) { return m.name == name; });
  return it == machines_.end() ? nullptr : &*it;
}

std::string RaceView::heard(const std::string& type, const json::value& data) {
  const json::value* given = field(data, "payload");
  const json::value payload = given == nullptr ? json::value(json::object()) : *given;
  Machine* m = of(data);
  if (type == "run_lifecycle") {
    if (str(payload, "type") == "run_end") over_ = true;
    if (m == nullptr) return "";
    if (str(payload, "type") == "machine_waits") {
      const std::string why = printable(str(payload, "why"));
      const std::int64_t left = num(payload, "ends_in_s", -1);
      m->waits = why.empty() ? "" : "waits: " + why;
      if (why.empty()) return "";
      return fmt::format("[{}] waits: {}{}\n", printable(m->name), why,
                         left < 0 ? "" : fmt::format("; its part ends in {} s unless that changes", left));
    }
    m->waits.clear();
    m->status = str(payload, "status");
    const std::string message = str(payload, "message");
    if (m->status == "completed") return "";
    m->figures = printable(message);
    return fmt::format("[{}] {}{}\n", printable(m->name), m->status, message.empty() ? "" : ": " + printable(message));
  }
  if (m == nullptr) return "";
  const std::string round = fmt::format("{}{}", flag(data, "warmup") ? "warm-up " : "#", num(data, "repeat") + 1);
  if (type == "job_start") {
    m->waits.clear();
    m->status = "running";
    if (!m->text.empty() && m->text.back() != '\n') m->text += '\n';
    m->text += "-- " + round + "\n";
    return fmt::format("[{}] {} starts\n", printable(m->name), round);
  }
  if (type.ends_with("_done") || type == "job_timeout") {
    ++m->done;
    m->figures = figures_of(payload);
    std::string out;
    if (!m->line.empty()) out = fmt::format("[{}] {}\n", printable(m->name), printable(std::exchange(m->line, {})));
    return out + fmt::format("[{}] {} {}\n", printable(m->name), round, m->figures);
  }
  const std::string said = words(type, payload);
  if (said.empty()) return "";
  m->text += said;
  if (m->text.size() > 2 * kTail) {
    std::size_t cut = m->text.size() - kTail;
    while (cut < m->text.size() && (static_cast<unsigned char>(m->text[cut]) & 0xc0) == 0x80) ++cut;
    m->text.erase(0, cut);
  }
  // Plain output is whole lines: words of several machines must not mix.
  m->line += said;
  std::string out;
  for (std::size_t end; (end = m->line.find('\n')) != std::string::npos; m->line.erase(0, end + 1))
    out += fmt::format("[{}] {}\n", printable(m->name), printable(std::string_view(m->line).substr(0, end)));
  return out;
}

std::vector<std::string> RaceView::picture(int width, int height, bool colour) const {
  std::vector<std::string> out;
  if (machines_.empty()) return out;
  const std::size_t fit = static_cast<std::size_t>(std::max(1, (width + kGap) / (kNarrowest + kGap)));
  const std::size_t across = std::min(machines_.size(), fit);
  const std::size_t rows = (machines_.size() + across - 1) / across;
  const auto cell =
      static_cast<std::size_t>(std::max(8, (width - kGap * (static_cast<int>(across) - 1)) / static_cast<int>(across)));
  const int lines = std::max(1, height / static_cast<int>(rows) - 3);
  const std::string gap(kGap, ' ');
  for (std::size_t row = 0; row < rows && static_cast<int>(out.size()) + 3 <= std::max(4, height); ++row) {
    std::vector<std::vector<std::string>> cells;
    for (std::size_t k = row * across; k < std::min(machines_.size(), (row + 1) * across); ++k) {
      const Machine& m = machines_[k];
      std::vector<std::string> one;
      one.push_back(paint(padded(printable(m.name) + "  " + m.status, cell), status_colour(m.status), colour));
      one.push_back(m.waits.empty() ? paint(padded(m.figures, cell), Colour::dim, colour)
                                    : paint(padded(m.waits, cell), Colour::yellow, colour));
      std::vector<std::string> text = wrapped(visible(m.text), cell);
      const auto shown = static_cast<std::size_t>(lines);
      if (text.size() > shown) text.erase(text.begin(), text.end() - static_cast<std::ptrdiff_t>(shown));
      text.resize(shown);
      for (std::string& line : text) one.push_back(padded(std::move(line), cell));
      cells.push_back(std::move(one));
    }
    for (std::size_t line = 0; line < cells.front().size(); ++line) {
      std::string whole;
      for (const auto& one : cells) whole += (whole.empty() ? "" : gap) + one[line];
      out.push_back(std::move(whole));
    }
    if (row + 1 < rows) out.emplace_back();
  }
  return out;
}

Screen::Screen() : on_(is_tty(STDERR_FILENO)) {}

void Screen::show(const RaceView& view) {
  if (!on_) return;
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
  const int width = known ? size.ws_col : 80, height = known ? size.ws_row : 24;
  const auto lines = view.picture(width - 1, std::min(height - 2, 20), colours(STDERR_FILENO));
  std::string text = lines_ > 0 ? fmt::format("\r\x1b[{}A", lines_) : "";
  for (const std::string& line : lines) text += line + "\x1b[K\n";
  text += "\x1b[J";
  lines_ = static_cast<int>(lines.size());
  write_all(STDERR_FILENO, text);
}

void Screen::clear() {
  lines_ = 0;  // the last picture stays
}

std::string race_table(const json::value& summary, int width, bool colour) {
  const std::string kind = str(summary, "kind");
  const bool compute = kind == "compute", llm = kind != "image" && !compute;
  const auto keys = server::run_columns(kind, str(summary, "op"));
  std::vector<std::string> head = {"MACHINE", "STATUS", "ENGINE"};
  if (compute) head.emplace_back("WHAT");
  if (llm) head.emplace_back("FIT");
  head.emplace_back("OK");
  const std::size_t first = head.size() - 1;
  for (const server::RunColumn& one : keys) {
    std::string word(one.label);
    for (char& c : word) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    head.push_back(std::move(word));
  }
  Table table(head);
  table.colour_by_status(1);
  for (std::size_t i = first; i < head.size(); ++i) table.align_right(i);
  std::string notes;
  const json::value* machines = field(summary, "machines");
  if (machines != nullptr && machines->is_object()) {
    for (const auto& [key, m] : machines->get_object()) {
      const std::string name = printable(std::string_view(key));
      std::vector<std::string> row = {name, str(m, "status"), printable(str(m, "engine", "-"))};
      if (compute) row.push_back(printable(what_it_did(m)));
      if (llm) row.push_back(str(m, "fit", "-"));
      row.push_back(fmt::format("{}/{}", num(m, "ok"), num(m, "requests")));
      for (const server::RunColumn& one : keys) row.push_back(figure(m, one.metric));
      table.row(std::move(row));
      if (const std::string waits = str(m, "waits"); !waits.empty())
        notes += fmt::format("{}: waits: {}\n", name, printable(waits));
      if (const std::string cached = str(m, "cache_note"); !cached.empty())
        notes += fmt::format("{}: {}\n", name, printable(cached));
      if (flag(m, "mock")) notes += fmt::format("{}: engine: mock ({})\n", name, printable(str(m, "mock_reason")));
      if (const std::string error = str(m, "error"); !error.empty()) {
        notes += fmt::format("{}: {}: {} {}\n", name, printable(error), printable(str(m, "message")), str(m, "advice"));
      }
    }
  }
  std::string out = table.text(width, colour) + notes;
  const json::value* ranking = field(summary, "ranking");
  if (ranking != nullptr && !str(*ranking, "sentence").empty()) out += printable(str(*ranking, "sentence")) + "\n";
  return out;
}

}  // namespace grange::cli
