#include "cli/why_failed.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

constexpr std::size_t kShown = 500;  // of a message, which may be a whole traceback

}  // namespace

std::string failure_words(const json::value& result) {
  const std::string failure = str(result, "failure"), kind = str(result, "exception");
  std::string message = str(result, "message");
  message = shorten(printable(message.substr(0, message.find('\n'))), kShown);
  while (!message.empty() && message.back() == '.') message.pop_back();
  std::string out = printable(failure.empty() ? str(result, "status") : failure);
  if (!kind.empty() && kind != failure && message.find(kind) == std::string::npos)
    out += fmt::format(" ({})", printable(kind));
  return message.empty() || message == out ? out : out + ": " + message;
}

std::string first_failure(Rest& rest, const std::string& job) {
  try {
    const json::array failed = list(rest.get(fmt::format("/api/jobs/{}/tasks?status=failed&limit=1", escape(job))));
    if (failed.empty()) return "";
    const std::int64_t index = num(failed.front(), "index");
    std::string path = fmt::format("/api/jobs/{}/results?limit=1", escape(job));
    if (index > 0) path += fmt::format("&after={}", index - 1);
    const json::array rows = list(rest.get(path));
    const bool same = !rows.empty() && num(rows.front(), "index", -1) == index;
    return fmt::format("task {}/{}: {}", job, index, failure_words(same ? rows.front() : failed.front()));
  } catch (const Exit&) {
    return "";  // how it ended is known; why, the server would have said
  }
}

}  // namespace grange::cli
