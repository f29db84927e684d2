#include "server/api/validate.hpp"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/evp.h>

#include <algorithm>

#include "base/limits.hpp"
#include "server/api/bad.hpp"
#include "server/text.hpp"
#include "store/blobs.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kSpecBytes = 4 * MiB;

Result<> blob_here(const std::string& sha256, std::string_view field, const BlobFacts& blobs) {
  if (!store::is_sha256(sha256))
    return bad(fmt::format("{} must be a SHA-256: 64 lower-case hexadecimal characters.", field));
  if (!blobs.exists(sha256)) {
    return Error{ErrorClass::not_found,
                 fmt::format("{} names the blob {}, which is not here. Upload it first: PUT /api/blobs/{}", field,
                             sha256, sha256),
                 fmt::format(R"({{"sha256":"{}"}})", sha256)};
  }
  return {};
}

Result<> check_builtin(const pb::BuiltinSpec& builtin) {
  static const std::vector<std::string_view> ops = {"noop", "echo", "sleep", "fail"};
  if (std::find(ops.begin(), ops.end(), builtin.op()) == ops.end()) {
    return bad(fmt::format("builtin.op is \"{}\"; it must be noop, echo, sleep or fail.", builtin.op().substr(0, 64)));
  }
  if (builtin.ms() > 24u * 3600 * 1000) return bad("builtin.ms may be at most a day.");
  if (builtin.message().size() > limits::kMessageBytes)
    return bad(fmt::format("builtin.message may have {} bytes.", limits::kMessageBytes));
  return {};
}

Result<> check_command(const pb::CommandSpec& command, const BlobFacts& blobs) {
  if (command.argv_size() == 0 || command.argv(0).empty())
    return bad("The command is empty: name a program, or give a script.");
  if (static_cast<std::size_t>(command.argv_size()) > limits::kArgv)
    return bad(fmt::format("A command may have {} arguments.", limits::kArgv));
  if (command.shell() && command.argv_size() != 1) return bad("A script is one text.");
  for (const std::string& part : command.argv()) {
    if (part.find('\0') != std::string::npos) return bad("The command holds a NUL character.");
  }
  for (const auto& [key, value] : command.env()) {
    if (key.empty() || key.find('=') != std::string::npos || key.find('\0') != std::string::npos ||
        value.find('\0') != std::string::npos) {
      return bad(fmt::format("\"{}\" cannot be the name of an environment variable.", html_escape(key.substr(0, 64))));
    }
  }
  if (static_cast<std::size_t>(command.files_in_size()) > limits::kFilesPerTask ||
      static_cast<std::size_t>(command.files_out_size()) > limits::kFilesPerTask) {
    return bad(fmt::format("A task may have {} files in and as many out.", limits::kFilesPerTask));
  }
  for (const pb::FileIn& file : command.files_in()) {
    if (!safe_path(file.path()))
      return bad(fmt::format("files_in: \"{}\" must be a path inside the task's folder, without \"..\".",
                             file.path().substr(0, 256)));
    if (auto here = blob_here(file.sha256(), fmt::format("files_in \"{}\"", file.path()), blobs); !here) return here;
  }
  for (const std::string& path : command.files_out()) {
    if (!safe_path(path))
      return bad(fmt::format("files_out: \"{}\" must be a path inside the task's folder, without \"..\".",
                             path.substr(0, 256)));
  }
  return {};
}

}  // namespace

Result<> check_pages(std::uint32_t count, const std::vector<core::ArgumentPage>& pages, const BlobFacts& blobs) {
  if (pages.empty()) return {};
  std::uint64_t next = 0;
  for (const core::ArgumentPage& page : pages) {
    if (page.first != next)
      return bad(fmt::format("The arguments must follow each other without gaps: a page starts at {} instead of {}.",
                             page.first, next));
    if (page.sizes.empty()) return bad("A page of arguments is empty.");
    std::uint64_t at = 0;
    for (const std::uint32_t size : page.sizes) {
      const bool blob = size == core::ArgumentPage::kBlobSize;
      if (!blob && size > limits::kInline) {
        return Error{ErrorClass::too_large,
                     fmt::format("The argument of task {} has {} bytes; above {} upload it as a blob.", next, size,
                                 limits::kInline)};
      }
      const std::uint64_t bytes = blob ? 64 : size;
      if (at + bytes > page.bytes.size())
        return bad(
            fmt::format("The sizes of the arguments from {} on add up to more than the bytes that came.", page.first));
      if (blob) {
        if (auto here = blob_here(page.bytes.substr(at, 64), fmt::format("The argument of task {}", next), blobs);
            !here)
          return here;
      }
      at += bytes;
      ++next;
    }
    if (at != page.bytes.size())
      return bad(fmt::format("The sizes of the arguments from {} on add up to {} bytes; {} came.", page.first, at,
                             page.bytes.size()));
  }
  if (next != count) return bad(fmt::format("There are {} tasks, but arguments for {}.", count, next));
  return {};
}

std::string default_name(const pb::JobSpec& spec) {
  if (spec.engine() == "python")
    return spec.python().function().empty() ? spec.python().model() : spec.python().function();
  if (spec.engine() == "builtin") return spec.builtin().op();
  if (is_ai_engine(spec.engine())) return ai_name(spec);
  std::string text = spec.command().argv_size() > 0 ? spec.command().argv(0) : std::string();
  if (!spec.command().shell()) return text.substr(text.rfind('/') == std::string::npos ? 0 : text.rfind('/') + 1);
  text = text.substr(0, text.find('\n'));
  return cut_utf8(std::move(text), 64);
}

bool safe_path(std::string_view path) {
  if (path.empty() || path.size() > 4096 || path.front() == '/' || path.find('\0') != std::string_view::npos ||
      path.find('\\') != std::string_view::npos)
    return false;
  for (;;) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

bool valid_name(std::string_view name) {
  return !name.empty() && name.size() <= limits::kNameBytes && is_utf8(name) &&
         std::none_of(name.begin(), name.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

// It stands in paths.
bool valid_user(std::string_view name) {
  return valid_name(name) && name.find('/') == std::string_view::npos && name != "." && name != "..";
}

std::string user_rule() {
  return fmt::format("A user's name has 1 to {} bytes, no \"/\", and none that cannot be seen.", limits::kNameBytes);
}

bool valid_job_id(std::string_view id) {
  const auto ok = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' ||
           c == '.' || c == ':' || c == '@';
  };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return !id.empty() && id.size() <= limits::kNameBytes && std::all_of(id.begin(), id.end(), ok) &&
         !std::all_of(id.begin(), id.end(), digit) && id != "." && id != "..";
}

Result<> validate_job(pb::JobSpec& spec, const std::string& id, const std::vector<core::ArgumentPage>& pages,
                      const BlobFacts& blobs) {
  if (!id.empty() && !valid_job_id(id)) {
    return bad(
        fmt::format("A job's own id may have up to {} letters, digits and any of _ - . : @, and not digits alone "
                    "(those are job numbers).",
                    limits::kNameBytes));
  }
  if (spec.engine().empty()) spec.set_engine(implied_engine(spec));
  if (spec.engine().empty())
    return bad(
        "The job says nothing to run: give \"command\", \"script\", \"python\", \"builtin\", \"llm\", \"image\", "
        "\"compute\", \"remote\" or \"models\".");
  if (spec.count() == 0 || spec.count() > limits::kTasksPerJob) {
    return Error{spec.count() == 0 ? ErrorClass::invalid_argument : ErrorClass::too_large,
                 fmt::format("A job has 1 to {} tasks; this one says {}.", limits::kTasksPerJob, spec.count())};
  }
  if (spec.priority() < limits::kPriorityMin || spec.priority() > limits::kPriorityMax) {
    return bad(fmt::format("The priority must be from {} to {}.", limits::kPriorityMin, limits::kPriorityMax));
  }
  if (spec.retry().max_attempts() > limits::kMaxAttempts || spec.retry().crash_limit() > limits::kMaxAttempts) {
    return bad(fmt::format("max_attempts and crash_limit may be at most {}.", limits::kMaxAttempts));
  }
  if (auto needs = check_requirements(spec.requirements()); !needs) return needs;
  for (const pb::Requirements& one : spec.any_of()) {
    if (auto needs = check_requirements(one); !needs) return needs;
  }
  if (auto order = check_order(spec); !order) return order;
  if (static_cast<std::size_t>(spec.labels_size()) > limits::kLabels)
    return bad(fmt::format("A job may have {} labels; this one has {}.", limits::kLabels, spec.labels_size()));
  if (!spec.key().empty() && !valid_name(spec.key()))
    return bad(fmt::format("The key may have at most {} bytes, and none that cannot be seen.", limits::kNameBytes));
  if (!spec.user().empty() && !valid_user(spec.user())) return bad(user_rule());

  Result<> engine = check_ai_engine(spec);
  if (is_ai_engine(spec.engine())) {
    // said above
  } else if (spec.engine() == "builtin") {
    engine = check_builtin(spec.builtin());
    spec.clear_command();
    spec.clear_python();
    spec.set_encoding(pb::ENCODING_RAW);
  } else if (spec.engine() == "command") {
    engine = check_command(spec.command(), blobs);
    spec.clear_builtin();
    spec.clear_python();
    spec.set_encoding(pb::ENCODING_RAW);
  } else if (spec.engine() == "python") {
    spec.clear_builtin();
    spec.clear_command();
    if (spec.encoding() == pb::ENCODING_UNSPECIFIED) spec.set_encoding(pb::ENCODING_PICKLE);
    if (spec.encoding() != pb::ENCODING_PICKLE && spec.encoding() != pb::ENCODING_JSON)
      return bad("A python job's encoding must be pickle or json.");
    if (spec.python().function().size() > limits::kNameBytes)
      return bad("python.function is a name for people; it is too long.");
    engine = blob_here(spec.python().code_sha256(), "python.code_sha256", blobs);
  } else {
    return bad(fmt::format(
        "The engine \"{}\" is not known; it must be command, python, builtin, llm, image, compute, remote or "
        "models.",
        cut_utf8(spec.engine(), 64)));
  }
  if (!engine) return engine;
  if (spec.name().empty()) spec.set_name(default_name(spec));
  if (spec.name().empty()) spec.set_name(spec.engine());
  std::string name = cut_utf8(spec.name(), limits::kNameBytes + 1);
  if (name.size() > limits::kNameBytes)
    return bad(fmt::format("The name may have at most {} bytes.", limits::kNameBytes));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  spec.set_name(std::move(name));
  if (spec.ByteSizeLong() > kSpecBytes) {
    return Error{
        ErrorClass::too_large,
        fmt::format("The job's spec may have {} bytes; put large inputs into files_in or arguments.", kSpecBytes)};
  }
  return check_pages(spec.count(), pages, blobs);
}

std::string serialize_stably(const pb::JobSpec& spec) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    spec.SerializeToCodedStream(&coded);
  }
  return out;
}

std::string job_digest(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>& pages) {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  const std::string bytes = serialize_stably(spec);
  EVP_DigestUpdate(context, bytes.data(), bytes.size());
  // Sizes first, then bytes, both over all pages: how a client cut its pages does not matter.
  for (const auto& page : pages)
    EVP_DigestUpdate(context, page.sizes.data(), page.sizes.size() * sizeof(std::uint32_t));
  for (const auto& page : pages) EVP_DigestUpdate(context, page.bytes.data(), page.bytes.size());
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context, digest, &size);
  EVP_MD_CTX_free(context);
  return to_hex({reinterpret_cast<const char*>(digest), size});
}

std::vector<std::string> page_blobs(const std::vector<core::ArgumentPage>& pages) {
  std::vector<std::string> out;
  for (const auto& page : pages) {
    std::size_t at = 0;
    for (const std::uint32_t size : page.sizes) {
      if (size == core::ArgumentPage::kBlobSize) out.push_back(page.bytes.substr(at, 64));
      at += size == core::ArgumentPage::kBlobSize ? 64 : size;
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<std::string> job_blobs(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>& pages) {
  std::vector<std::string> out = page_blobs(pages);
  if (spec.engine() == "python") out.push_back(spec.python().code_sha256());
  for (const pb::FileIn& file : spec.command().files_in()) out.push_back(file.sha256());
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace grange::server
