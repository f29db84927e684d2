// What a job waits for, when it runs, and beside what.
#include "base/limits.hpp"
#include "server/api/job_keys.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::pair<std::string_view, pb::DependsWhen> kWhen[] = {{"all_succeeded", pb::DEPENDS_ALL_SUCCEEDED},
                                                                  {"all_finished", pb::DEPENDS_ALL_FINISHED},
                                                                  {"any_succeeded", pb::DEPENDS_ANY_SUCCEEDED}};

bool read_dependency(Keys& keys, const json::value& one, pb::DependsOn& out) {
  if (one.is_string()) {
    out.set_job_id(std::string(one.get_string()));
  } else if (one.is_int64() || one.is_uint64()) {
    out.set_job_id(json::serialize(one));
  } else if (one.is_object()) {
    Keys inner(one.get_object(), "after.");
    if (const json::value* job = inner.find("job"); job != nullptr && (job->is_int64() || job->is_uint64())) {
      out.set_job_id(json::serialize(*job));
    } else {
      inner.text("job", *out.mutable_job_id());
    }
    std::int64_t index = 0;
    if (inner.integer("index", 0, limits::kTasksPerJob - 1, index)) {
      out.set_one(true);
      out.set_index(static_cast<std::uint32_t>(index));
    }
    bool flag = false;
    if (inner.flag("each", flag)) out.set_each(flag);
    if (inner.flag("pass", flag)) out.set_pass(flag);
    if (auto result = inner.finish(); !result) {
      keys.fail(std::move(result).error());
      return false;
    }
  } else {
    return keys.wrong("after", "must hold names or ids of jobs, or tables such as {job = \"prep\", each = true}");
  }
  return !out.job_id().empty() || keys.wrong("after", "has an entry that names no job");
}

void read_dependencies(Keys& keys, pb::JobSpec& spec) {
  if (const json::value* after = keys.find("after"); after != nullptr) {
    if (!after->is_array()) {
      read_dependency(keys, *after, *spec.add_depends_on());
    } else {
      for (const json::value& one : after->get_array()) {
        if (!read_dependency(keys, one, *spec.add_depends_on())) break;
      }
    }
  }
  std::string when;
  if (!keys.text("when", when)) return;
  for (const auto& [name, value] : kWhen) {
    if (name == when) return spec.set_when(value);
  }
  keys.wrong("when", "must be all_succeeded, all_finished or any_succeeded");
}

void read_times(Keys& keys, JobFile& file) {
  pb::JobSpec& spec = file.spec;
  std::uint64_t ms = 0;
  const auto relative = [&](std::string_view key, Millis& out) {
    if (!keys.duration(key, ms)) return false;
    out = Millis{static_cast<std::int64_t>(std::max<std::uint64_t>(1, ms))};
    return true;
  };
  if (keys.time("not_before", ms)) spec.set_not_before_ms(ms);
  if (relative("start_in", file.start_in) && spec.not_before_ms() != 0)
    keys.wrong("start_in", "and \"not_before\" exclude each other");
  if (keys.time("deadline", ms)) spec.set_deadline_ms(ms);
  if (relative("finish_in", file.finish_in) && spec.deadline_ms() != 0)
    keys.wrong("finish_in", "and \"deadline\" exclude each other");
  if (file.finish_in.count() != 0 && file.finish_in <= file.start_in)
    keys.wrong("finish_in", "must be later than \"start_in\": the job would be over before it may start");
  if (keys.duration("result_ttl", ms)) spec.set_result_ttl_ms(ms);
  std::uint32_t short_ms = 0;
  if (keys.duration32("grace", short_ms)) spec.set_grace_ms(short_ms);
  const json::object* stages = keys.object("stages");
  if (stages == nullptr) return;
  Keys inner(*stages, "stages.");
  pb::Stages& out = *spec.mutable_stages();
  if (inner.duration32("reserve", short_ms)) out.set_reserve_ms(short_ms);
  if (inner.duration32("startup", short_ms)) out.set_startup_ms(short_ms);
  if (inner.duration32("download", short_ms)) out.set_download_ms(short_ms);
  if (inner.duration32("execute", short_ms)) out.set_execute_ms(short_ms);
  if (inner.duration32("upload", short_ms)) out.set_upload_ms(short_ms);
  if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
}

void read_speculation(Keys& keys, pb::JobSpec& spec) {
  const json::value* value = keys.find("speculate");
  if (value == nullptr) return;
  if (value->is_bool()) {
    if (value->get_bool()) spec.mutable_speculation()->set_on(true);
    return;
  }
  if (!value->is_object()) {
    keys.wrong("speculate", "must be true, or a table such as {factor = 2.0, min_done = 5}");
    return;
  }
  Keys inner(value->get_object(), "speculate.");
  pb::Speculation& out = *spec.mutable_speculation();
  out.set_on(true);
  std::uint64_t factor = 0;
  if (inner.number("factor", 1000, 1000, factor)) {
    if (factor < 1000) inner.wrong("factor", "must be at least 1");
    out.set_factor_milli(static_cast<std::uint32_t>(factor));
  }
  std::int64_t least = 0;
  if (inner.integer("min_done", 1, limits::kTasksPerJob, least)) out.set_min_done(static_cast<std::uint32_t>(least));
  if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
}

void read_unique(Keys& keys, pb::JobSpec& spec) {
  const json::value* value = keys.find("unique");
  if (value == nullptr) return;
  if (!value->is_object()) {
    if (keys.text("unique", *spec.mutable_unique()) && spec.unique().empty())
      keys.wrong("unique", "is empty: give a word, or leave it out");
    return;
  }
  Keys inner(value->get_object(), "unique.");
  if (!inner.text("word", *spec.mutable_unique())) inner.wrong("word", "is missing");
  if (spec.unique().empty()) inner.wrong("word", "is empty: give a word, or leave \"unique\" out");
  std::uint64_t ms = 0;
  if (inner.duration("for", ms)) spec.set_unique_ms(ms);
  if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
}

json::value time_text(std::uint64_t ms) {
  return json::string(iso_time(WallMs{static_cast<std::int64_t>(ms)}));
}

bool digits(std::string_view& text, std::size_t count, int& out) {
  if (text.size() < count) return false;
  out = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (text[i] < '0' || text[i] > '9') return false;
    out = out * 10 + (text[i] - '0');
  }
  text.remove_prefix(count);
  return true;
}

bool sign(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

// Days since 1970 of a date (Howard Hinnant's algorithm).
std::int64_t days_of(int year, int month, int day) {
  const int y = month <= 2 ? year - 1 : year;
  const int era = y / 400, of_era = y - era * 400;
  const int of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  return std::int64_t{era} * 146'097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719'468;
}

}  // namespace

Result<std::uint64_t> read_time_ms(std::string_view text) {
  const Error bad{
      ErrorClass::invalid_argument,
      fmt::format("\"{}\" is not understood; write it like \"2026-12-01T08:00:00Z\", or with an offset such "
                  "as +01:00 instead of Z.",
                  cut_utf8(std::string(text), 64))};
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, milli = 0;
  if (!digits(text, 4, year) || !sign(text, '-') || !digits(text, 2, month) || !sign(text, '-') ||
      !digits(text, 2, day))
    return bad;
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  constexpr int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (year < 1970 || month < 1 || month > 12 || day < 1 || day > lengths[month - 1] + (month == 2 && leap ? 1 : 0))
    return bad;
  if (!sign(text, 'T') && !sign(text, 't') && !sign(text, ' ')) return bad;
  if (!digits(text, 2, hour) || !sign(text, ':') || !digits(text, 2, minute)) return bad;
  if (sign(text, ':')) {
    if (!digits(text, 2, second)) return bad;
    if (sign(text, '.')) {
      int one = 0, scale = 100;
      if (!digits(text, 1, one)) return bad;
      do {
        milli += one * scale;
        scale /= 10;
      } while (digits(text, 1, one));
    }
  }
  if (hour > 23 || minute > 59 || second > 59) return bad;
  int offset = 0;
  if (!sign(text, 'Z') && !sign(text, 'z')) {
    const bool plus = sign(text, '+');
    int hours = 0, minutes = 0;
    if ((!plus && !sign(text, '-')) || !digits(text, 2, hours)) return bad;
    sign(text, ':');
    if (!digits(text, 2, minutes) || hours > 23 || minutes > 59) return bad;
    offset = (plus ? 1 : -1) * (hours * 60 + minutes);
  }
  const std::int64_t ms =
      ((days_of(year, month, day) * 24 + hour) * 60 + minute - offset) * 60'000 + second * 1000 + milli;
  if (!text.empty() || ms < 0) return bad;
  return static_cast<std::uint64_t>(ms);
}

void read_order(Keys& keys, JobFile& file) {
  pb::JobSpec& spec = file.spec;
  read_dependencies(keys, spec);
  read_times(keys, file);
  read_speculation(keys, spec);
  read_unique(keys, spec);
  std::int64_t number = 0;
  if (keys.integer("nodes", 1, limits::kNodes, number)) spec.set_nodes(static_cast<std::uint32_t>(number));
  if (keys.integer("max_running", 0, limits::kTasksPerJob, number))
    spec.set_max_running(static_cast<std::uint32_t>(number));
  std::uint64_t weight = 0;
  if (keys.number("weight", 1000, 1000, weight)) {
    if (weight == 0) keys.wrong("weight", "must be from 0.001 to 1000");
    spec.set_weight_milli(static_cast<std::uint32_t>(weight));
  }
  bool open = false;
  if (keys.flag("open", open)) spec.set_open(open);
}

void write_order(const pb::JobSpec& spec, json::object& out) {
  if (spec.depends_on_size() > 0) {
    json::array after;
    for (const pb::DependsOn& one : spec.depends_on()) {
      json::object to{{"job", one.job_id()}};
      if (one.one()) to["index"] = one.index();
      if (one.each()) to["each"] = true;
      if (one.pass()) to["pass"] = true;
      if (to.size() == 1) {
        after.emplace_back(one.job_id());
      } else {
        after.push_back(std::move(to));
      }
    }
    out["after"] = std::move(after);
  }
  for (const auto& [name, value] : kWhen) {
    if (spec.when() == value && value != pb::DEPENDS_ALL_SUCCEEDED) out["when"] = name;
  }
  if (spec.not_before_ms() != 0) out["not_before"] = time_text(spec.not_before_ms());
  if (spec.deadline_ms() != 0) out["deadline"] = time_text(spec.deadline_ms());
  if (spec.result_ttl_ms() != 0) out["result_ttl"] = in_seconds(spec.result_ttl_ms());
  if (spec.grace_ms() != 0) out["grace"] = in_seconds(spec.grace_ms());
  if (spec.has_stages()) {
    json::object stages;
    const pb::Stages& s = spec.stages();
    for (const auto& [name, ms] :
         std::initializer_list<std::pair<std::string_view, std::uint32_t>>{{"reserve", s.reserve_ms()},
                                                                           {"startup", s.startup_ms()},
                                                                           {"download", s.download_ms()},
                                                                           {"execute", s.execute_ms()},
                                                                           {"upload", s.upload_ms()}}) {
      if (ms != 0) stages[name] = in_seconds(ms);
    }
    out["stages"] = std::move(stages);
  }
  if (spec.speculation().on()) {
    json::object to;
    if (spec.speculation().factor_milli() != 0) to["factor"] = spec.speculation().factor_milli() / 1000.0;
    if (spec.speculation().min_done() != 0) to["min_done"] = spec.speculation().min_done();
    out["speculate"] = to.empty() ? json::value(true) : json::value(std::move(to));
  }
  if (!spec.unique().empty()) {
    if (spec.unique_ms() != 0) {
      out["unique"] = json::object{{"word", spec.unique()}, {"for", in_seconds(spec.unique_ms())}};
    } else {
      out["unique"] = spec.unique();
    }
  }
  if (spec.nodes() > 1) out["nodes"] = spec.nodes();
  if (spec.max_running() != 0) out["max_running"] = spec.max_running();
  if (spec.weight_milli() != 0) out["weight"] = spec.weight_milli() / 1000.0;
  if (spec.open()) out["open"] = true;
}

}  // namespace grange::server
