#include "worker/services/keeper.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <sstream>

#include "worker/engines/remote_rules.hpp"
#include "worker/leftovers.hpp"
#include "worker/process.hpp"
#include "worker/resources.hpp"
#include "worker/services/service_config.hpp"

extern char** environ;

namespace grange::worker {

namespace {

constexpr Millis kHealthSilence{5'000};
constexpr Bytes kHealthAnswer = 4 * MiB;
constexpr Millis kMemoryLook{2'000};
constexpr std::size_t kLastWords = 2 * KiB;  // of its output, kept for when it ends
constexpr std::size_t kWordLines = 8, kErrorText = 1 * KiB;
constexpr int kEndLooks = 200;               // at what an earlier worker left
constexpr std::size_t kUnwritten = 4 * MiB;  // of output that waits for the disk

std::string log_time(WallMs now) {
  const std::time_t seconds = now.ms / 1000;
  std::tm date{};
  ::gmtime_r(&seconds, &date);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &date)};
}

std::string how_it_ended(const ExitStatus& status) {
  if (status.signal == 0) return "It ended with exit code " + std::to_string(status.code) + ".";
  const char* known = ::sigabbrev_np(status.signal);
  return "It was ended by signal " + std::to_string(status.signal) +
         (known != nullptr ? std::string(" (SIG") + known + ")." : ".");
}

std::string care_text(std::string text) {
  if (text.size() <= kErrorText) return text;
  std::size_t most = kErrorText;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

// Of it and all below it, in clock ticks.
std::uint64_t tree_ticks(pid_t root) {
  std::vector<pid_t> all = descendants(root);
  all.push_back(root);
  std::uint64_t sum = 0;
  for (const pid_t pid : all) {
    const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat", 4096);
    const std::size_t close = text.rfind(')');  // a name may hold anything
    if (close == std::string::npos) continue;
    std::istringstream fields(text.substr(close + 1));
    std::string skipped;
    for (int field = 3; field < 14; ++field) fields >> skipped;
    std::uint64_t user = 0, system = 0;
    if (fields >> user >> system) sum += user + system;
  }
  return sum;
}

class Keeping final : public Keeper {
 public:
  Keeping(net::Loop& loop, net::HttpClient& http, const Guardian* guardian, const Clock& clock, KeeperOptions options)
      : loop_(loop),
        http_(http),
        guardian_(guardian),
        clock_(clock),
        options_(std::move(options)),
        care_(care_rules(options_.services)),
        alive_(std::make_shared<bool>(true)) {
    const Environment environment = process_environment();
    for (const CareSpec& spec : options_.services) {
      auto one = std::make_unique<Kept>();
      one->log = std::make_shared<ServiceLog>(options_.folder + "/" + spec.name + ".log");
      one->key = key_of(environment, {spec.name, spec.kind, spec.url, ""});
      one->since = clock_.now().wall;
      kept_.push_back(std::move(one));
    }
  }
  ~Keeping() override {
    alive_.reset();
    for (const auto& one : kept_) one->process.reset();
    if (disk_.running()) disk_.call([] {});  // what waits to be written
    disk_.stop();
  }

  Result<> start() override;
  const std::vector<CareSpec>& specs() const override { return options_.services; }
  void on_change(std::function<void(const std::string&)> changed) override { changed_ = std::move(changed); }

  std::optional<Shown> shown(std::string_view name) const override {
    const auto at = place(name);
    if (!at) return std::nullopt;
    const Kept& one = *kept_[*at];
    return Shown{care_.seen(*at), one.process ? one.process->pid() : 0, one.since};
  }

  Result<> wish(std::string_view name, CareWish wish) override {
    const auto at = place(name);
    if (!at)
      return Error{ErrorClass::not_found, "This worker does not keep a service \"" + std::string(name.substr(0, 64)) +
                                              "\" running: put it into its services file."};
    if (over_) return Error{ErrorClass::unavailable, "This worker is stopping."};
    if (wish != CareWish::stop) {
      const auto seen = care_.seen(*at);
      if (auto may = care_.may_start(*at); !may && !(seen.alive && !seen.ending && wish == CareWish::start)) return may;
    }
    act(care_.step({wish == CareWish::start  ? CareEvent::What::start
                    : wish == CareWish::stop ? CareEvent::What::stop
                                             : CareEvent::What::restart,
                    *at},
                   now()));
    return {};
  }

  bool log(const std::string& name, std::size_t lines, std::uint64_t after,
           std::function<void(ServiceLog::Tail)> done) override {
    const auto at = place(name);
    if (!at) return false;
    if (Kept& one = *kept_[*at]; one.process) one.process->drain();
    disk_.post([log = kept_[*at]->log, lines, after, done = std::move(done), alive = std::weak_ptr<bool>(alive_),
                &loop = loop_]() mutable {
      auto tail = std::make_shared<ServiceLog::Tail>(log->tail(lines, after));
      loop.post([tail, done = std::move(done), alive] {
        if (!alive.expired()) done(std::move(*tail));
      });
    });
    return true;
  }

  void fill(pb::Heartbeat& beat, Instant now) override;

  void end(std::function<void()> done) override {
    over_ = true;
    ended_ = std::move(done);
    for (std::size_t i = 0; i < kept_.size(); ++i) act(care_.step({CareEvent::What::stop, i}, now()));
    tell_end();
  }
  void end_now() override {
    for (const auto& one : kept_) {
      if (one->process) one->process->signal_all(SIGKILL);
    }
  }

 private:
  struct Kept {
    std::shared_ptr<ServiceLog> log;  // the disk's thread only
    std::string key;                  // for looks
    std::unique_ptr<Process> process;
    std::unique_ptr<net::HttpClient::Call> look;
    std::string last_words;
    std::size_t unwritten = 0;  // bytes of output
    WallMs since{};
    std::string told;         // what was last told of it
    std::string log_trouble;  // why its output is not kept; "": it is
    std::uint64_t ticks = 0;
    Instant measured{};
  };

  Instant now() const { return clock_.now().mono; }
  std::optional<std::size_t> place(std::string_view name) const {
    for (std::size_t i = 0; i < options_.services.size(); ++i) {
      if (options_.services[i].name == name) return i;
    }
    return std::nullopt;
  }

  void act(const std::vector<CareAction>& actions);
  void spawn(std::size_t i);
  void look(std::size_t i);
  void exited(std::size_t i, const std::string& how);
  bool output(std::size_t i, std::string_view bytes);
  void write_log(std::size_t i, std::string text, bool own_line);
  void watch_memory();
  void tell();
  void tell_end();
  void arm();
  // In a turn of its own: a process or a call must not go while it is what called us.
  void later(std::size_t i, CareEvent::What what, std::string why) {
    loop_.post([this, i, what, why = std::move(why), alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) act(care_.step({what, i, why}, now()));
    });
  }
  std::vector<std::string> environment_of(const CareSpec& spec) const;

  net::Loop& loop_;
  net::HttpClient& http_;
  const Guardian* guardian_;
  const Clock& clock_;
  KeeperOptions options_;
  Care care_;
  std::shared_ptr<bool> alive_;
  std::vector<std::unique_ptr<Kept>> kept_;
  std::function<void(const std::string&)> changed_;
  std::function<void()> ended_;
  bool over_ = false;
  std::unique_ptr<net::Timer> wake_, memory_;
  Instant armed_ = Instant::never();
  net::Loop disk_;
};

Result<> Keeping::start() {
  std::error_code error;
  std::filesystem::create_directories(options_.folder, error);
  if (error) return Error{ErrorClass::io, "The folder " + options_.folder + " cannot be used: " + error.message()};
  std::filesystem::permissions(options_.folder, std::filesystem::perms::owner_all, error);
  const std::string file = options_.folder + "/mark";
  const std::string mark = (guardian_ != nullptr ? guardian_->mark() : "") + "\n";
  const Fd out(::open((file + ".new").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!out || ::write(out.get(), mark.data(), mark.size()) != static_cast<ssize_t>(mark.size()) ||
      ::fsync(out.get()) != 0 || ::rename((file + ".new").c_str(), file.c_str()) != 0)
    return Error{ErrorClass::io, "The file " + file + " cannot be written: " + std::strerror(errno)};
  disk_.start_thread();
  for (std::size_t i = 0; i < kept_.size(); ++i) act(care_.step({CareEvent::What::start, i}, now()));
  memory_ = loop_.every(kMemoryLook, [this] { watch_memory(); });
  return {};
}

void Keeping::act(const std::vector<CareAction>& actions) {
  for (const CareAction& action : actions) {
    Kept& one = *kept_[action.service];
    switch (action.what) {
      case CareAction::What::spawn:
        spawn(action.service);
        break;
      case CareAction::What::look:
        look(action.service);
        break;
      case CareAction::What::end:
        one.look.reset();
        if (one.process) one.process->signal(SIGTERM);
        break;
      case CareAction::What::kill:
        if (one.process) one.process->signal_all(SIGKILL);
        break;
    }
  }
  tell();
  arm();
}

std::vector<std::string> Keeping::environment_of(const CareSpec& spec) const {
  std::map<std::string, std::string> all;
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string_view text(*at);
    const std::size_t equals = text.find('=');
    const std::string_view key = text.substr(0, equals);
    // The worker's own settings and the keys that it holds are none of the service's.
    if (equals == std::string_view::npos || key.starts_with("GRANGE_") || key.starts_with("OPENAI_") ||
        key.starts_with("REPLICATE_") || key.starts_with("RUNPOD_"))
      continue;
    all[std::string(key)] = text.substr(equals + 1);
  }
  for (const auto& [key, value] : spec.env) all[key] = value;
  std::vector<std::string> out;
  if (guardian_ != nullptr && !guardian_->mark().empty()) out.push_back(guardian_->mark());
  for (const auto& [key, value] : all) out.push_back(key + "=" + value);
  return out;
}

void Keeping::spawn(std::size_t i) {
  const CareSpec& spec = options_.services[i];
  Kept& one = *kept_[i];
  one.last_words.clear();
  one.ticks = 0;
  ProcessSpec process;
  process.argv = spec.command;
  process.env = environment_of(spec);
  process.folder = spec.cwd;
  const auto path = spec.env.find("PATH");
  auto program = find_program(spec.command.front(), path != spec.env.end() ? path->second : options_.path, spec.cwd);
  const auto failed = [&](const std::string& why) {
    write_log(i, "-- grange " + log_time(clock_.now().wall) + ": " + why, true);
    spdlog::warn("The service {} could not be started: {}", spec.name, why);
    later(i, CareEvent::What::exited, care_text(clean_text("It could not be started: " + why)));
  };
  if (!program) return failed(program.error().message);
  process.program = std::move(*program);
  auto started = Process::start(loop_, guardian_, process,
                                {.on_output = [this, i](Output, std::string_view bytes) { return output(i, bytes); },
                                 .on_exit = [this, i](const ExitStatus& status) { exited(i, how_it_ended(status)); }});
  if (!started) return failed(started.error().message);
  one.process = std::move(*started);
  write_log(i,
            "-- grange " + log_time(clock_.now().wall) + ": started as process " + std::to_string(one.process->pid()),
            true);
  spdlog::info("Started the service {} as process {}", spec.name, one.process->pid());
}

bool Keeping::output(std::size_t i, std::string_view bytes) {
  Kept& one = *kept_[i];
  one.last_words.append(bytes.substr(bytes.size() - std::min(bytes.size(), kLastWords)));
  if (one.last_words.size() > kLastWords) one.last_words.erase(0, one.last_words.size() - kLastWords);
  write_log(i, std::string(bytes), false);
  return one.unwritten < kUnwritten;
}

void Keeping::write_log(std::size_t i, std::string text, bool own_line) {
  Kept& one = *kept_[i];
  const std::size_t size = text.size();
  one.unwritten += size;
  disk_.post([this, i, size, own_line, log = one.log, text = std::move(text), alive = std::weak_ptr<bool>(alive_),
              &loop = loop_] {
    const auto written = own_line ? log->line(text) : log->append(text);
    loop.post([this, i, size, alive, why = written ? std::string() : written.error().message] {
      if (alive.expired()) return;
      Kept& kept = *kept_[i];
      const bool held = kept.unwritten >= kUnwritten;
      kept.unwritten -= size;
      if (why != kept.log_trouble) spdlog::warn("{}", why.empty() ? "The log is written again." : why);
      kept.log_trouble = why;
      if (held && kept.unwritten < kUnwritten && kept.process) kept.process->resume();
    });
  });
}

void Keeping::exited(std::size_t i, const std::string& how) {
  Kept& one = *kept_[i];
  one.look.reset();
  write_log(i, "-- grange " + log_time(clock_.now().wall) + ": " + how, true);
  const std::string words(last_lines(clean_text(one.last_words), kWordLines, kErrorText - 128));
  std::string why = how;
  if (!words.empty()) why += " Its last lines:\n" + words;
  while (why.ends_with('\n')) why.pop_back();
  spdlog::info("The service {} is gone. {}", options_.services[i].name, how);
  loop_.post([old = std::shared_ptr<Process>(std::move(one.process))] {});  // we are in its callback
  act(care_.step({CareEvent::What::exited, i, care_text(std::move(why))}, now()));
  tell_end();
}

void Keeping::look(std::size_t i) {
  const CareSpec& spec = options_.services[i];
  net::ClientRequest request;
  request.url = spec.url + spec.health;
  if (!kept_[i]->key.empty()) request.headers["Authorization"] = "Bearer " + kept_[i]->key;
  request.idle = kHealthSilence;
  request.limit = kHealthAnswer;
  // The old call's end may be what we are in.
  loop_.post([old = std::shared_ptr<net::HttpClient::Call>(std::move(kept_[i]->look))] {});
  kept_[i]->look = http_.send(std::move(request), [this, i, path = spec.health](Result<net::ClientResponse> answer) {
    const bool well = answer && answer->status / 100 == 2;
    std::string why;
    if (!answer) why = without_key(answer.error().message, kept_[i]->key);
    if (answer && !well) why = "It answered " + path + " with " + std::to_string(answer->status) + ".";
    later(i, well ? CareEvent::What::healthy : CareEvent::What::sick, care_text(clean_text(why)));
  });
}

void Keeping::watch_memory() {
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    const auto& limit = options_.services[i].memory;
    if (!limit || !kept_[i]->process || kept_[i]->process->memory(false) <= *limit) continue;
    const Bytes used = kept_[i]->process->memory(true);
    if (used <= *limit) continue;
    act(care_.step({CareEvent::What::too_big, i,
                    "It used " + std::to_string(used / MiB) + " MiB of memory; its limit is " +
                        std::to_string(*limit / MiB) + " MiB."},
                   now()));
  }
}

void Keeping::fill(pb::Heartbeat& beat, Instant at) {
  const double per_second = static_cast<double>(::sysconf(_SC_CLK_TCK));
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    Kept& one = *kept_[i];
    if (!one.process || one.process->ended()) continue;
    pb::ServiceLoad& load = *beat.add_services();
    load.set_name(options_.services[i].name);
    load.set_memory_bytes(one.process->memory(false));
    const std::uint64_t ticks = tree_ticks(one.process->pid());
    const double passed = static_cast<double>((at - one.measured).count()) / 1e6;
    // One below it that ended takes its time along: then there is no figure this once.
    if (one.ticks != 0 && ticks >= one.ticks && passed > 0)
      load.set_cpu_percent(100.0 * static_cast<double>(ticks - one.ticks) / per_second / passed);
    one.ticks = ticks;
    one.measured = at;
  }
}

void Keeping::tell() {
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    Kept& one = *kept_[i];
    const Care::Seen seen = care_.seen(i);
    const std::string state(name(seen.state));
    std::string all = state + "\n" + std::to_string(one.process ? one.process->pid() : 0) + "\n" +
                      std::to_string(seen.restarts) + "\n" + seen.note + "\n" + seen.last_error;
    if (all == one.told) continue;
    if (!one.told.starts_with(state + "\n")) {
      one.since = clock_.now().wall;
      if (seen.state == CareState::failed)
        spdlog::error("The service {} has failed: {}", options_.services[i].name, seen.last_error);
    }
    one.told = std::move(all);
    if (changed_) changed_(options_.services[i].name);
  }
}

void Keeping::tell_end() {
  if (!ended_ || !care_.all_gone()) return;
  loop_.post([done = std::exchange(ended_, nullptr)] { done(); });
}

void Keeping::arm() {
  const Instant next = care_.next_wake();
  if (next == armed_ && wake_) return;
  armed_ = next;
  loop_.post([old = std::shared_ptr<net::Timer>(std::move(wake_))] {});  // we may be in its callback
  if (next == Instant::never()) return;
  const auto rest = std::max<std::int64_t>(0, (next - now()).count());
  wake_ = loop_.after(Millis{(rest + 999) / 1000}, [this] {
    armed_ = Instant::never();
    act(care_.tick(now()));
  });
}

}  // namespace

void end_left_services(const std::string& folder) {
  std::string before = read_text(folder + "/mark", 256);
  while (!before.empty() && before.back() == '\n') before.pop_back();
  if (!before.starts_with(std::string(kMark) + "=")) return;
  for (int look = 0; look < kEndLooks && kill_marked(before) > 0; ++look) ::usleep(10'000);
}

std::unique_ptr<Keeper> make_keeper(net::Loop& loop, net::HttpClient& http, const Guardian* guardian,
                                    const Clock& clock, KeeperOptions options) {
  return std::make_unique<Keeping>(loop, http, guardian, clock, std::move(options));
}

}  // namespace grange::worker
