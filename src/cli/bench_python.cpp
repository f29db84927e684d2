// The Python engine through the Python package, as a program of a user would: `python -m grange.bench` as a child.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstring>
#include <filesystem>

#include "cli/bench_farm.hpp"
#include "cli/exit.hpp"
#include "cli/rest.hpp"

extern char** environ;

namespace grange::cli {

json::object bench_python(const BenchFarm& farm, const BenchOptions& options, const std::string& what) {
  const std::string python = find_python(options.python);
  std::vector<std::string> arguments{python,  "-m",      "grange.bench", what, "--count", std::to_string(options.count),
                                     "--url", farm.url()};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  if (!farm.token().empty()) setenv("GRANGE_TOKEN", farm.token().c_str(), 1);
  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) throw Exit{kFailed, fmt::format("No pipe could be made: {}.", std::strerror(errno))};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  pid_t pid = -1;
  const int failed = posix_spawnp(&pid, python.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  std::string text;
  char buffer[4096];
  while (failed == 0) {
    const ssize_t n = read(out[0], buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  close(out[0]);
  int status = 0;
  if (failed == 0) waitpid(pid, &status, 0);
  boost::system::error_code ec;
  const json::value figure = json::parse(text, ec);
  if (failed != 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || ec || !figure.is_object()) {
    throw Exit{kFailed, fmt::format("The Python part of the benchmark did not run with {}; name an interpreter that "
                                    "has the grange package with --python.",
                                    python)};
  }
  return figure.get_object();
}

}  // namespace grange::cli
