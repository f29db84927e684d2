// A job file from what a job was made of.
#include "server/api/job_keys.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {

json::object write_job_file(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>* pages) {
  json::object out;
  const auto text = [&out](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  const auto map = [](const auto& from) {
    json::object to;
    for (const auto& [key, value] : from) to[key] = value;
    return to;
  };
  text("name", spec.name());
  text("engine", spec.engine());
  out["count"] = spec.count();
  if (spec.has_command()) {
    const pb::CommandSpec& command = spec.command();
    if (command.shell()) {
      out["script"] = command.argv_size() > 0 ? command.argv(0) : std::string();
    } else {
      json::array argv;
      for (const std::string& part : command.argv()) argv.emplace_back(part);
      out["command"] = std::move(argv);
    }
    if (command.env_size() > 0) out["env"] = map(command.env());
    if (command.files_in_size() > 0) {
      json::array files;
      for (const pb::FileIn& file : command.files_in()) {
        files.push_back(json::object{
            {"path", file.path()}, {"sha256", file.sha256()}, {"bytes", file.bytes()}, {"mode", file.mode()}});
      }
      out["files_in"] = std::move(files);
    }
    if (command.files_out_size() > 0) {
      json::array files;
      for (const std::string& file : command.files_out()) files.emplace_back(file);
      out["files_out"] = std::move(files);
    }
    if (!command.stdin().empty())
      out["stdin"] = is_utf8(command.stdin()) ? command.stdin() : to_base64(command.stdin());
  }
  if (spec.has_python()) {
    json::object python;
    if (!spec.python().code_sha256().empty()) python["code_sha256"] = spec.python().code_sha256();
    if (!spec.python().function().empty()) python["function"] = spec.python().function();
    if (!spec.python().model().empty()) python["model"] = spec.python().model();
    out["python"] = std::move(python);
    out["encoding"] = spec.encoding() == pb::ENCODING_JSON ? "json" : "pickle";
  }
  if (spec.has_builtin()) {
    json::object builtin{{"op", spec.builtin().op()}};
    if (spec.builtin().ms() != 0) builtin["ms"] = spec.builtin().ms();
    if (!spec.builtin().message().empty()) builtin["message"] = spec.builtin().message();
    if (spec.builtin().permanent()) builtin["permanent"] = true;
    out["builtin"] = std::move(builtin);
  }
  write_engines(spec, out);
  if (spec.priority() != 0) out["priority"] = spec.priority();
  if (spec.has_retry()) write_retry(spec.retry(), out);
  if (spec.time_limit_ms() != 0) out["timeout"] = spec.time_limit_ms() / 1000.0;
  for (auto& [key, value] : write_requirements(spec.requirements(), false)) out[key] = std::move(value);
  if (spec.any_of_size() > 0) {
    json::array list{write_requirements(spec.requirements(), true)};
    for (const pb::Requirements& one : spec.any_of()) list.push_back(write_requirements(one, true));
    out["any_of"] = std::move(list);
  }
  write_order(spec, out);
  text("user", spec.user());
  text("key", spec.key());
  if (spec.fail_fast()) out["fail_fast"] = true;
  if (pages != nullptr && !pages->empty()) {
    json::array args;
    for (const core::ArgumentPage& page : *pages) {
      std::size_t at = 0;
      for (const std::uint32_t size : page.sizes) {
        const std::size_t bytes = size == core::ArgumentPage::kBlobSize ? 64 : size;
        const std::string_view one = std::string_view(page.bytes).substr(at, bytes);
        at += bytes;
        if (spec.encoding() == pb::ENCODING_JSON && size != core::ArgumentPage::kBlobSize) {
          auto value = wire::parse_json(one);
          args.push_back(value ? std::move(*value) : json::value(nullptr));
        } else {
          args.emplace_back(is_utf8(one) ? std::string(one) : to_base64(one));
        }
      }
    }
    out["args"] = std::move(args);
  }
  return out;
}

}  // namespace grange::server
