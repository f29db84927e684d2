// `grange top`: the farm in a terminal, live.
#include <fmt/format.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <clocale>
#include <cstring>

#include "cli/exit.hpp"
#include "cli/parse.hpp"
#include "cli/term.hpp"
#include "cli/top_feed.hpp"
#include "cli/top_screen.hpp"

namespace grange::cli {
namespace {

top::Clock top_clock() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return {.mono_ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count(), .wall_ms = now_ms()};
}

bool speaks_utf8() {
  std::setlocale(LC_CTYPE, "");
  return std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

// SIGINT and its kind as something to read, so that the terminal is given back before we go. To be made before any
// thread, which would get them else.
class TopSignals {
 public:
  TopSignals() {
    sigemptyset(&set_);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
    // Never called, since it is blocked: ncurses ignores SIGTSTP while it draws, which throws a pending one away, and
    // leaves alone what somebody handles.
    signal(SIGTSTP, [](int) {});
    fd_ = signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd_ < 0) throw Exit{kFailed, fmt::format("Signals cannot be read here: {}", std::strerror(errno))};
  }
  ~TopSignals() {
    close(fd_);
    signal(SIGTSTP, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  TopSignals(const TopSignals&) = delete;
  TopSignals& operator=(const TopSignals&) = delete;
  int fd() const { return fd_; }
  int next() const {  // 0: none
    signalfd_siginfo info{};
    return read(fd_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  sigset_t set_{}, before_{};
  int fd_ = -1;
};

int top_live(const Context& context, Millis interval) {
  const std::string token = context.token();
  const TopSignals signals;
  top::State state = top::start(context.url, interval.count(), speaks_utf8());
  int ended_by = 0;
  {
    top::Screen screen;
    auto feed = std::make_unique<top::Feed>(context.url, token);
    while (!state.quit && state.refused.empty() && ended_by == 0) {
      const bool tried = state.link.trying;
      const std::vector<top::Ask> asks = top::asks(state, top_clock());
      // A new client for each try: the circuit breaker of the last one would hold it back.
      if (!tried && state.link.trying) feed = std::make_unique<top::Feed>(context.url, token);
      for (const top::Ask& ask : asks) feed->send(ask);
      state.width = screen.width();
      state.height = screen.height();
      screen.show(top::draw(state, top_clock()));

      pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {feed->fd(), POLLIN, 0}, {signals.fd(), POLLIN, 0}};
      poll(fds, 3, static_cast<int>(top::rests(state, top_clock())));
      for (int number; (number = signals.next()) != 0;) {
        if (number == SIGWINCH) {
          screen.resized();
        } else if (number == SIGTSTP) {
          screen.stop_and_go_on();
        } else {
          ended_by = number;
        }
      }
      for (const top::Answer& answer : feed->take()) top::hear(state, answer, top_clock());
      for (const top::Key& key : screen.keys()) top::press(state, key, top_clock());
      if ((fds[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) ended_by = SIGHUP;  // the terminal is gone
    }
  }
  if (!state.refused.empty()) throw Exit{kFailed, state.refused};
  return ended_by == 0 ? static_cast<int>(kOk) : 128 + ended_by;
}

int top_once(const Context& context) {
  top::State state = top::start(context.url, 1000, speaks_utf8());
  top::Feed feed(context.url, context.token());
  while (!top::complete(state) && state.refused.empty() && state.link.state != top::Link::lost) {
    for (const top::Ask& ask : top::asks(state, top_clock())) feed.send(ask);
    pollfd wait{feed.fd(), POLLIN, 0};
    poll(&wait, 1, 100);
    for (const top::Answer& answer : feed.take()) top::hear(state, answer, top_clock());
  }
  if (!state.refused.empty()) throw Exit{kFailed, state.refused};
  if (state.link.state == top::Link::lost) Rest(context).fail_with(Error{ErrorClass::unavailable, state.link.why});
  for (const std::string& line : top::text_of(state, terminal_width(), top_clock())) fmt::print("{}\n", line);
  return kOk;
}

int top_json(const Context& context) {
  Rest rest(context);
  json::object out;
  out["stats"] = rest.get("/api/stats");
  out["jobs"] = rest.get("/api/jobs?limit=100");
  out["workers"] = rest.get("/api/workers");
  print_json(out);
  return kOk;
}

}  // namespace

void add_top(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("top",
                                     "Watch the farm in this terminal: figures, jobs, workers, logs; with keys "
                                     "to open, cancel, pause, retry and drain")
                      ->fallthrough();
  sub->footer(
      "Example:\n  grange top\n  grange top --interval 5s\n  grange top --once > farm.txt\n\nInside, ? shows the "
      "keys.");
  struct Options {
    bool once = false;
    std::string interval = "1s";
  };
  auto options = std::make_shared<Options>();
  sub->add_flag("--once", options->once, "Print one frame as text, and end");
  sub->add_option("--interval", options->interval, "Between two looks at the server (default 1s)")->type_name("S");
  sub->callback([&context, options] {
    context.action = [&context, options] {
      const Millis interval = take(parse_duration(options->interval));
      if (interval < Millis{100} || interval > Millis{3'600'000})
        throw Exit{kUsage, fmt::format("--interval {}: from 0.1s to 1h.", options->interval)};
      if (context.json) return top_json(context);
      if (options->once) return top_once(context);
      if (!is_tty(STDIN_FILENO) || !is_tty(STDOUT_FILENO)) {
        throw Exit{kUsage,
                   "`grange top` needs a terminal. For a script there are `grange top --once`, and `grange jobs` and "
                   "`grange workers` with --json."};
      }
      return top_live(context, interval);
    };
  });
}

}  // namespace grange::cli
