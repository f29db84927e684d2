#include "cli/bench_farm.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/version.hpp"

namespace grange::cli {
namespace {

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  }
  utsname name{};
  return uname(&name) == 0 ? name.machine : "unknown";
}

std::string filesystem_of(const std::string& folder) {
  struct statfs info {};
  if (statfs(folder.c_str(), &info) != 0) return "unknown";
  switch (static_cast<unsigned long>(info.f_type)) {
    case 0xEF53:
      return "ext4";
    case 0x9123683E:
      return "btrfs";
    case 0x58465342:
      return "xfs";
    case 0x01021994:
      return "tmpfs";
    case 0x794C7630:
      return "overlay";
    case 0x2FC12FC1:
      return "zfs";
    case 0x6969:
      return "nfs";
    default:
      return fmt::format("0x{:x}", static_cast<unsigned long>(info.f_type));
  }
}

// One line, or nothing when the other side closes or the time is over.
std::string read_line(int fd, std::chrono::seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  std::string line;
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd poll_fd{fd, POLLIN, 0};
    if (left <= 0 || poll(&poll_fd, 1, static_cast<int>(left)) <= 0) return "";
    char c = 0;
    if (read(fd, &c, 1) != 1) return "";
    if (c == '\n') return line;
    line += c;
  }
}

}  // namespace

std::string find_python(const std::string& given) {
  if (!given.empty()) return given;
  if (const char* from_env = std::getenv("GRANGE_PYTHON"); from_env != nullptr && *from_env != '\0') return from_env;
  std::error_code ec;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", ec);
  std::vector<std::filesystem::path> tries;
  if (!ec) tries.push_back(self.parent_path().parent_path().parent_path() / ".venv/bin/python");
  if (const char* venv = std::getenv("VIRTUAL_ENV"); venv != nullptr && *venv != '\0')
    tries.push_back(std::filesystem::path(venv) / "bin/python");
  for (const auto& path : tries) {
    if (access(path.c_str(), X_OK) == 0) return path.string();
  }
  return "python3";
}

BenchFarm::BenchFarm(const Context& context, const BenchOptions& options) {
  if (context.url_given) {
    url_ = context.url;
    token_ = context.token();
    Rest(url_, token_).get("/api/stats");  // says it well when it is not there
    return;
  }
  try {
    start(options);
  } catch (...) {
    end();
    throw;
  }
}

BenchFarm::~BenchFarm() {
  end();
}

void BenchFarm::start(const BenchOptions& options) {
  // Not /tmp: that is often memory, and the figures are about durable work.
  std::string scratch = (options.scratch.empty() ? "/var/tmp" : options.scratch) + "/grange-bench-XXXXXX";
  if (mkdtemp(scratch.data()) == nullptr) {
    throw Exit{kFailed, fmt::format("No scratch folder can be made at {}: {}. Name another place with --scratch DIR.",
                                    scratch, std::strerror(errno))};
  }
  folder_ = scratch;
  filesystem_ = filesystem_of(folder_);
  std::vector<std::string> arguments{"grange",
                                     "up",
                                     "--json",
                                     "--port",
                                     "0",
                                     "--ws-port",
                                     "0",
                                     "--data",
                                     folder_ + "/data",
                                     "--workers",
                                     std::to_string(options.workers),
                                     "--slots",
                                     std::to_string(options.slots),
                                     "--log-level",
                                     "warn"};
  if (options.engine == "python") arguments.insert(arguments.end(), {"--python", find_python(options.python)});
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) throw Exit{kFailed, fmt::format("No pipe could be made: {}.", std::strerror(errno))};
  unsetenv("GRANGE_TOKEN");  // a farm of its own, on loopback
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    setpgid(0, 0);
    dup2(out[1], STDOUT_FILENO);
    execv("/proc/self/exe", argv.data());
    _exit(127);
  }
  close(out[1]);
  const std::string line = pid_ > 0 ? read_line(out[0], std::chrono::seconds(30)) : "";
  close(out[0]);
  boost::system::error_code ec;
  const json::value ready = json::parse(line, ec);
  if (ec || str(ready, "url").empty())
    throw Exit{kFailed, "The farm for this benchmark did not start; its messages stand above."};
  url_ = str(ready, "url");
  const json::value* workers = field(ready, "workers");
  if (workers == nullptr || !workers->is_array() ||
      workers->get_array().size() != static_cast<std::size_t>(options.workers)) {
    throw Exit{kFailed, "The workers for this benchmark did not start; their messages stand above."};
  }
}

void BenchFarm::end() {
  if (pid_ > 0) {
    kill(pid_, SIGTERM);
    for (int i = 0; i < 200 && waitpid(pid_, nullptr, WNOHANG) == 0; ++i) {
      if (i == 199) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    pid_ = -1;
  }
  if (!folder_.empty()) {
    std::error_code ec;
    std::filesystem::remove_all(folder_, ec);
    folder_.clear();
  }
}

std::string BenchFarm::ws_url() const {
  return "ws" + url_.substr(4) + "/ws";
}

void BenchFarm::describe(json::object& figure, const BenchOptions& options) const {
  utsname name{};
  uname(&name);
  figure["engine"] = options.engine;
  // The server answers only for what is synced to its disk; memory in place of a disk makes that worth nothing.
  figure["durable"] = filesystem_ != "tmpfs";
  figure["version"] = version();
  figure["commit"] = commit();
  figure["cpu"] = cpu_model();
  figure["cores"] = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  json::object settings{{"build", build_type()}, {"kernel", std::string(name.release)}, {"own_farm", own()}};
  if (own()) {
    settings["workers"] = options.workers;
    settings["slots"] = options.slots;
    settings["filesystem"] = filesystem_;
  } else {
    settings["server"] = url_;
  }
  if (options.batch > 0) settings["batch"] = options.batch;
  if (options.engine == "builtin") settings["op"] = options.op;
  figure["settings"] = std::move(settings);
}

}  // namespace grange::cli
