#include "worker/services/services.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "net/url.hpp"
#include "worker/services/fits.hpp"
#include "worker/services/keeper.hpp"
#include "worker/services/look.hpp"
#include "worker/services/model_files.hpp"
#include "worker/services/service_config.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kServices = 64;
constexpr Millis kDownLast{15'000};   // between looks at one that was there, or should be
constexpr Millis kProbeLast{60'000};  // and at a usual port where nothing was found
constexpr int kMisses = 3;            // in a row, before one that is silent counts as down: it may be busy

struct UsualPort {
  std::string_view kind;
  std::uint16_t port;
};
constexpr UsualPort kUsualPorts[] = {{"ollama", 11434}, {"llamacpp", 8080}, {"llamacpp", 9931},
                                     {"comfyui", 8188}, {"openai", 1234},   {"openai", 8000}};

// One service, there or not.
struct Watch {
  ServiceConfig config;
  bool named = true;  // by a person; false: a usual port
  bool kept = false;  // the worker starts it itself
  bool listed = true;
  bool again = false;          // look once more when this look is over
  int misses = 0, failed = 0;  // looks in a row
  Millis wait{0};
  ServiceInfo info;
  FactsCache facts;
  std::string file;  // whose head was read for `facts`
  std::unique_ptr<Look> look;
  std::unique_ptr<net::Timer> timer;
};

bool on_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

class Watcher final : public Services {
 public:
  Watcher(net::Loop& loop, net::HttpClient& http, ServicesOptions options)
      : loop_(loop), http_(http), options_(std::move(options)), alive_(std::make_shared<bool>(true)) {
    const Environment environment = process_environment();
    std::vector<std::string> texts = options_.configured;
    for (std::string& one : split_list(environment("GRANGE_SERVICES").value_or(""))) texts.push_back(std::move(one));
    std::vector<ServiceConfig> configs;
    for (const std::string& text : texts) {
      if (auto one = parse_service(text)) {
        one->key = key_of(environment, *one);
        configs.push_back(std::move(*one));
      } else {
        spdlog::warn("{}", one.error().message);
      }
    }
    for (ServiceConfig& one : services_by_key(environment)) {
      const bool told = std::any_of(configs.begin(), configs.end(),
                                    [&](const ServiceConfig& other) { return other.kind == one.kind; });
      if (!told) configs.push_back(std::move(one));
    }
    if (options_.keeper != nullptr) {  // first: their names are as they are written
      for (const CareSpec& spec : options_.keeper->specs()) {
        ServiceConfig one{spec.name, spec.kind, spec.url, ""};
        one.key = key_of(environment, one);
        add(std::move(one), true);
        watches_.back()->kept = true;
        watches_.back()->info.shown.set_managed(true);
      }
      options_.keeper->on_change([this](const std::string& name) { care_changed(name); });
    }
    for (ServiceConfig& one : configs) {
      if (watches_.size() < kServices) add(std::move(one), true);
    }
    if (!options_.probe) return;
    for (const UsualPort& usual : kUsualPorts) {
      if (!told_of(usual.port))
        add({"", std::string(usual.kind), "http://127.0.0.1:" + std::to_string(usual.port), ""}, false);
    }
  }
  ~Watcher() override {
    if (options_.keeper != nullptr) options_.keeper->on_change(nullptr);
    watches_.clear();
    disk_.stop();
  }

  void start() override {
    disk_.start_thread();
    rebuild();
    for (const auto& watch : watches_) begin(*watch);
    look_at_files();
  }

  const std::vector<ServiceInfo>& list() const override { return list_; }
  const std::string& folder() const override { return options_.folder; }
  Keeper* keeper() override { return options_.keeper; }
  void on_change(std::function<void()> changed) override { changed_ = std::move(changed); }

  std::optional<ServiceInfo> find(const std::vector<std::string_view>& kinds, std::string_view name,
                                  std::string_view model) const override {
    auto all = ranked(list_, kinds, name, model);
    if (all.empty()) return std::nullopt;
    return std::move(all.front());
  }

  void look_again() override {
    for (const auto& watch : watches_) {
      if (watch->look) {
        watch->again = true;
      } else if (watch->listed) {
        begin(*watch);
      }
    }
    look_at_files();
  }

 private:
  void add(ServiceConfig config, bool named) {
    auto watch = std::make_unique<Watch>();
    watch->config = std::move(config);
    watch->named = watch->listed = named;
    watch->wait = options_.every;
    const ServiceConfig& c = watch->config;
    if (named) name(*watch, c.name.empty() ? c.kind : c.name);
    watch->info.url = c.url;
    watch->info.key = c.key;
    watch->info.shown.set_kind(c.kind);
    if (is_remote(c.kind)) {
      // What it costs to ask is not ours to spend: with a key it counts as there.
      watch->info.shown.set_state(c.key.empty() ? "down" : "ready");
      watch->info.shown.set_note(c.key.empty() ? "There is no key for it in the worker's environment." : "");
    } else {
      watch->info.shown.set_state("down");
      watch->info.shown.set_note("It is being looked at.");
    }
    watches_.push_back(std::move(watch));
  }

  void name(Watch& watch, const std::string& wanted) {
    const auto taken = [&](const std::string& word) {
      return word == "files" || std::any_of(watches_.begin(), watches_.end(), [&](const auto& other) {
               return other.get() != &watch && other->info.shown.name() == word;
             });
    };
    std::string name = wanted;
    for (int n = 2; taken(name); ++n) name = wanted + "-" + std::to_string(n);
    watch.info.shown.set_name(name);
  }

  bool told_of(std::uint16_t port) const {
    return std::any_of(watches_.begin(), watches_.end(), [&](const auto& watch) {
      const auto url = net::parse_url(watch->config.url);
      return watch->named && url && url->port == port && on_loopback(url->host);
    });
  }

  // One that the worker keeps is looked at while it is ready; else what its keeper says is all there is to say.
  bool up(const Watch& watch) const {
    if (!watch.kept) return true;
    const auto care = options_.keeper->shown(watch.config.name);
    return care && care->state == CareState::ready;
  }
  void care_changed(const std::string& name) {
    for (const auto& watch : watches_) {
      if (!watch->kept || watch->config.name != name) continue;
      const bool now_up = up(*watch), looked = watch->info.shown.care() == "ready";
      if (now_up && !looked) watch->misses = watch->failed = 0;
      // Of another process nothing is known yet; the timer and the look may be what we are called from.
      if (!now_up) {
        loop_.post([look = std::shared_ptr<Look>(std::move(watch->look)),
                    timer = std::shared_ptr<net::Timer>(std::move(watch->timer))] {});
      }
      pb::Service now = watch->info.shown;
      if (!now_up) now.set_state("down");
      if (now_up && !looked) now.set_state("loading");
      show(*watch, std::move(now));
      if (now_up && !watch->look) begin(*watch);
    }
  }
  void dress(const Watch& watch, pb::Service& now) const {
    const auto care = options_.keeper->shown(watch.config.name);
    if (!care) return;
    now.set_managed(true);
    now.set_care(std::string(worker::name(care->state)));
    now.set_pid(static_cast<std::uint32_t>(care->pid));
    now.set_restarts(care->restarts);
    now.set_since_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(0, care->since.ms)));
    now.set_last_error(care->last_error);
    if (care->state == CareState::ready) {
      if (watch.config.kind == "other") now.set_state("ready");
      if (now.state() == "ready") now.clear_note();
      return;
    }
    now.set_state("down");
    now.set_note(care->note);
    // One that comes back by itself will have them again; the models of another are not offered.
    if (care->state == CareState::stopped || care->state == CareState::failed) now.clear_models();
  }

  void begin(Watch& watch) {
    if (is_remote(watch.config.kind) || watch.config.kind == "other" || !up(watch)) return;
    watch.again = false;
    if (watch.facts.size() > 4 * kModels) watch.facts.clear();  // of models that went long ago
    watch.look = look(http_, {watch.config.kind, watch.config.url, watch.config.key, watch.named}, watch.facts,
                      [this, &watch](Looked looked) { ended(watch, std::move(looked)); });
  }

  void ended(Watch& watch, Looked looked) {
    watch.look.reset();
    if (looked.is_it) {
      watch.misses = watch.failed = 0;
      watch.wait = options_.every;
      there(watch, std::move(looked));
    } else if (looked.silent && watch.info.shown.state() == "ready" && ++watch.misses < kMisses) {
      watch.wait = options_.every;
    } else {
      watch.wait = std::min(options_.every * (1 << std::min(watch.failed++, 8)), watch.listed ? kDownLast : kProbeLast);
      if (watch.listed) {
        pb::Service down = std::move(looked.seen);
        down.set_name(watch.info.shown.name());
        down.set_kind(watch.config.kind);
        show(watch, std::move(down));
      }
    }
    if (watch.again) return begin(watch);
    watch.timer = loop_.after(watch.wait, [this, &watch] {
      if (!watch.look) begin(watch);
    });
  }

  void there(Watch& watch, Looked looked) {
    if (!watch.listed) {
      watch.listed = true;
      name(watch, looked.flavour.empty() ? watch.config.kind : looked.flavour);
      spdlog::info("Found the service {} at {}", watch.info.shown.name(), watch.config.url);
    }
    read_file(watch, looked);
    pb::Service now = std::move(looked.seen);
    now.set_name(watch.info.shown.name());
    now.set_kind(watch.config.kind);
    judge(now, watch.facts, options_.machine);
    // Its file says more of it than llama.cpp does.
    if (watch.config.kind == "llamacpp" && now.models_size() == 1) {
      pb::Model& model = *now.mutable_models(0);
      if (const auto it = watch.facts.find(watch.file); it != watch.facts.end()) {
        model.set_quantization(it->second.quantization);
        model.set_family(it->second.architecture);
        if (model.context() == 0) model.set_context(it->second.context_length);
      }
    }
    show(watch, std::move(now));
  }

  // Of a llama.cpp on this machine; what is learned shows from the next look on.
  void read_file(Watch& watch, const Looked& looked) {
    const auto url = net::parse_url(watch.config.url);
    if (looked.file.empty() || looked.file == watch.file || !url || !on_loopback(url->host)) return;
    watch.file = looked.file;
    on_disk([file = looked.file] { return facts_of_file(file); },
            [this, &watch, file = looked.file](std::optional<ai::ModelFacts> facts) {
              if (!facts || watch.file != file) return;
              watch.facts[file] = std::move(*facts);
              if (!watch.look) begin(watch);
            });
  }

  void look_at_files() {
    if (options_.folder.empty()) return;
    if (reading_files_) {
      files_again_ = true;
      return;
    }
    reading_files_ = true;
    on_disk([folder = options_.folder] { return list_model_files(folder, kModels); },
            [this](std::vector<ModelFile> found) {
              reading_files_ = false;
              show_files(std::move(found));
              if (std::exchange(files_again_, false)) look_at_files();
            });
  }
  void show_files(std::vector<ModelFile> found) {
    pb::Service now;
    FactsCache facts;
    for (ModelFile& file : found) {
      if (file.facts) facts[facts_key(file.model)] = std::move(*file.facts);
      *now.add_models() = std::move(file.model);
    }
    judge(now, facts, options_.machine);
    now.set_name("files");
    now.set_kind("files");
    now.set_state("down");
    now.set_note("Model files that this worker keeps; by themselves they answer nothing.");
    if (now.models_size() == 0) now.Clear();
    if (now.SerializeAsString() == files_.SerializeAsString()) return;
    files_ = std::move(now);
    changed();
  }

  // `work` on the disk's thread, then `after` here.
  template <class Work, class After>
  void on_disk(Work work, After after) {
    disk_.post([work = std::move(work), after = std::move(after), alive = std::weak_ptr<bool>(alive_),
                &loop = loop_]() mutable {
      auto answer = std::make_shared<decltype(work())>(work());
      loop.post([answer, after = std::move(after), alive]() mutable {
        if (!alive.expired()) after(std::move(*answer));
      });
    });
  }

  void show(Watch& watch, pb::Service now) {
    if (watch.kept) dress(watch, now);
    const bool same = now.SerializeAsString() == watch.info.shown.SerializeAsString();
    watch.info.shown = std::move(now);
    const bool in_list = std::any_of(list_.begin(), list_.end(), [&](const ServiceInfo& one) {
      return one.shown.name() == watch.info.shown.name();
    });
    if (!same || !in_list) changed();
  }
  void changed() {
    rebuild();
    if (changed_) changed_();
  }
  void rebuild() {
    list_.clear();
    for (const auto& watch : watches_) {
      if (watch->listed) list_.push_back(watch->info);
    }
    if (!files_.name().empty()) list_.push_back({"", "", files_});
  }

  net::Loop& loop_;
  net::HttpClient& http_;
  ServicesOptions options_;
  std::shared_ptr<bool> alive_;
  std::vector<std::unique_ptr<Watch>> watches_;
  std::vector<ServiceInfo> list_;
  pb::Service files_;
  bool reading_files_ = false, files_again_ = false;
  std::function<void()> changed_;
  net::Loop disk_;
};

}  // namespace

std::unique_ptr<Services> make_services(net::Loop& loop, net::HttpClient& http, ServicesOptions options) {
  return std::make_unique<Watcher>(loop, http, std::move(options));
}

std::string engine_of(std::string_view kind) {
  if (kind == "ollama" || kind == "llamacpp" || kind == "openai") return "llm";
  if (kind == "comfyui") return "image";
  if (kind == "files") return "models";
  if (kind == "other") return "";
  return "remote:" + std::string(kind.starts_with("remote-") ? kind.substr(7) : kind);
}

std::vector<ServiceInfo> ranked(const std::vector<ServiceInfo>& all, const std::vector<std::string_view>& kinds,
                                std::string_view name, std::string_view model) {
  struct Place {
    int rank;
    const ServiceInfo* service;
  };
  std::vector<Place> places;
  for (const ServiceInfo& one : all) {
    const pb::Service& shown = one.shown;
    if (shown.state() == "down" || (!name.empty() && name != shown.name())) continue;
    if (std::find(kinds.begin(), kinds.end(), shown.kind()) == kinds.end()) continue;
    int rank = shown.state() == "ready" ? 0 : 100;
    if (!model.empty()) {
      const pb::Model* best = nullptr;
      for (const pb::Model& listed : shown.models()) {
        if (!same_model(shown.kind(), listed.name(), model)) continue;
        if (best == nullptr || listed.name() == model) best = &listed;
      }
      // A llama.cpp that is still loading may not say what it loads, and serves one model; a remote service is not
      // asked.
      const bool unsaid = is_remote(shown.kind()) || (shown.state() == "loading" && shown.models().empty());
      if (best == nullptr && !unsaid) continue;
      if (best == nullptr || !best->loaded()) rank += 10;
      if (best != nullptr && best->fit() == "FAIL") rank += 2;
      if (best != nullptr && best->fit() == "RISK") rank += 1;
    }
    places.push_back({rank, &one});
  }
  std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.rank < b.rank; });
  std::vector<ServiceInfo> out;
  for (const Place& place : places) out.push_back(*place.service);
  return out;
}

ai::MachineFacts machine_facts(const Resources& resources) {
  ai::MachineFacts out;
  for (const GpuInfo& gpu : resources.gpus) {
    out.gpus.push_back({gpu.name, gpu.memory, gpu.memory});
    // One pool for all: the driver names no memory of its own.
    if (gpu.memory == 0) out.unified = true;
  }
  out.ram_total = resources.memory;
  const auto available = parse_meminfo(read_text("/proc/meminfo"), "MemAvailable");
  out.ram_available = std::min(resources.memory, available.value_or(resources.memory));
  return out;
}

}  // namespace grange::worker
