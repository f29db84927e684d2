#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>

#include "cli/exit.hpp"
#include "cli/parse.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct TokensOptions {
  std::string name, role = "user", expires, file;
};

std::string roughly(std::int64_t ms) {
  const std::int64_t minutes = std::max<std::int64_t>(1, ms / 60'000);
  if (minutes < 120) return fmt::format("{} min", minutes);
  return minutes < 2880 ? fmt::format("{} h", (minutes + 30) / 60) : fmt::format("{} d", (minutes + 720) / 1440);
}

std::string expiry(const json::value& token) {
  const std::int64_t at = num(token, "expires_ms");
  if (at == 0) return "never";
  return flag(token, "expired") || at <= now_ms() ? "expired" : "in " + roughly(at - now_ms());
}

std::string when(const json::value& token, const char* key) {
  const std::int64_t at = num(token, key);
  return at == 0 ? "never" : roughly(now_ms() - at) + " ago";
}

int list_tokens(Context& context) {
  Rest rest(context);
  const json::value answer = rest.get("/api/tokens");
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  const json::value* tokens = field(answer, "tokens");
  const json::array rows = tokens == nullptr ? json::array() : list(*tokens);
  if (rows.empty()) {
    fmt::print("No tokens with a name. Make one with: grange tokens create NAME --role user\n");
    return kOk;
  }
  Table table({"TOKEN", "ROLE", "EXPIRES", "LAST USED", "MADE", "BY"});
  for (const json::value& row : rows) {
    table.row({printable(str(row, "name")), printable(str(row, "role")), expiry(row), when(row, "last_used_ms"),
               when(row, "created_ms"), printable(str(row, "created_by"))});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

// A new file that only its owner reads, opened before the token is made: what cannot be written is not asked for.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path) : path_(path) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd_ < 0)
      throw Exit{kUsage,
                 fmt::format("Cannot make the file {}: {}. It must not exist yet.", path, std::strerror(errno))};
  }
  ~TokenFile() {
    ::close(fd_);
    if (!written_) ::unlink(path_.c_str());
  }
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;
  void write(const std::string& token) {
    const std::string line = token + "\n";
    written_ = ::write(fd_, line.data(), line.size()) == static_cast<ssize_t>(line.size());
    if (!written_) throw Exit{kFailed, fmt::format("Cannot write to {}: {}", path_, std::strerror(errno))};
  }

 private:
  std::string path_;
  int fd_ = -1;
  bool written_ = false;
};

int create_token(Context& context, const TokensOptions& options) {
  json::object body{{"name", options.name}, {"role", options.role}};
  if (!options.expires.empty()) {
    const auto duration = parse_duration(options.expires);
    if (!duration || duration->count() < 1000)
      throw Exit{kUsage, "--expires takes a duration of a second or more, such as 30d or 12h."};
    body["expires_in_s"] = duration->count() / 1000;
  }
  std::unique_ptr<TokenFile> file;
  if (!options.file.empty()) file = std::make_unique<TokenFile>(options.file);
  Rest rest(context);
  json::value answer = rest.post("/api/tokens", body);
  if (file != nullptr) {
    try {
      file->write(str(answer, "token"));
    } catch (const Exit&) {
      rest.remove("/api/tokens/" + escape(options.name));  // nobody has it
      throw;
    }
    answer.as_object().erase("token");
  }
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  const std::string what = fmt::format("The token \"{}\" has the role {}{}.", options.name, options.role,
                                       num(answer, "expires_ms") > 0 ? ", and expires " + expiry(answer) : "");
  if (file != nullptr) {
    fmt::print("{} It is in {}; use it with --token-file {}\n", what, options.file, options.file);
    return kOk;
  }
  // The token alone on stdout, for $(…) and files.
  fmt::print("{}\n", str(answer, "token"));
  fmt::print(stderr, "{} It is shown this once. Use it as GRANGE_TOKEN, or in a file with --token-file.\n", what);
  return kOk;
}

}  // namespace

void add_tokens(CLI::App& app, Context& context) {
  CLI::App* tokens =
      app.add_subcommand("tokens", "Tokens with a name and a role, for people and machines")->fallthrough();
  tokens->footer("Example:\n  grange tokens create anna --role user --expires 30d\n  grange tokens");
  tokens->require_subcommand(0, 1);
  CLI::App* ls = tokens->add_subcommand("list", "List tokens; never their secrets")->alias("ls")->fallthrough();
  ls->footer("Example:\n  grange tokens list");
  auto options = std::make_shared<TokensOptions>();
  CLI::App* create = tokens->add_subcommand("create", "Make a token; it is shown once")->fallthrough();
  create->footer(
      "Roles: admin: all. user: submits and changes his own jobs, sees all, uses models. viewer: sees. worker: serves "
      "as "
      "a worker. models: uses models through the gateway.\n\n"
      "Example:\n  grange tokens create anna --role user --expires 30d\n"
      "  grange tokens create attic --role worker --file attic.token");
  create->add_option("NAME", options->name, "Its name, which is the user of what is submitted with it")->required();
  create->add_option("--role", options->role, "What it may do (default: user)")
      ->check(CLI::IsMember({"admin", "user", "viewer", "worker", "models"}))
      ->type_name("ROLE");
  create->add_option("--expires", options->expires, "After so long it opens nothing; left out: never")
      ->type_name("TIME");
  create
      ->add_option("--file", options->file, "Write it to this new file, readable by you alone, instead of printing it")
      ->type_name("FILE");
  CLI::App* revoke =
      tokens->add_subcommand("revoke", "Take a token back; what is open by it ends")->alias("rm")->fallthrough();
  revoke->footer("Example:\n  grange tokens revoke anna");
  revoke->add_option("NAME", options->name, "Its name")->required();
  tokens->callback([&context, options, create, revoke] {
    context.action = [&context, options, create = create->parsed(), revoke = revoke->parsed()] {
      if (create) return create_token(context, *options);
      if (!revoke) return list_tokens(context);
      Rest rest(context);
      const json::value answer = rest.remove("/api/tokens/" + escape(options->name));
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print("{} opens nothing any more\n", options->name);
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
