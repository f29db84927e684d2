#include "worker/services/services.hpp"

#include <cstdlib>
#include <fstream>

#include "base/prng.hpp"
#include "net/net_testing.hpp"
#include "worker/services/answers.hpp"
#include "worker/services/fits.hpp"
#include "worker/services/look.hpp"
#include "worker/services/model_files.hpp"
#include "worker/services/service_config.hpp"

namespace grange::worker {
namespace {

using namespace net::testing;
using net::HttpExchangePtr;
using net::HttpResponse;

// ---------------------------------------------------------------------------------------------------- configuration

Environment environment(std::map<std::string, std::string> set) {
  return [set = std::move(set)](const std::string& name) -> std::optional<std::string> {
    const auto it = set.find(name);
    return it == set.end() ? std::nullopt : std::optional(it->second);
  };
}

TEST(ServiceConfig, KindsNamesAndUrls) {
  const auto plain = parse_service("ollama=http://127.0.0.1:11434/");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->kind, "ollama");
  EXPECT_EQ(plain->name, "");
  EXPECT_EQ(plain->url, "http://127.0.0.1:11434");
  const auto named = parse_service("big:openai=http://10.0.0.7:8000/base/v1/");
  ASSERT_TRUE(named.ok());
  EXPECT_EQ(named->name, "big");
  EXPECT_EQ(named->url, "http://10.0.0.7:8000/base");
  EXPECT_EQ(parse_service("runpod=https://api.runpod.ai/v2/")->url, "https://api.runpod.ai");
  EXPECT_EQ(parse_service("openai=http://10.0.0.7:8000/v2")->url, "http://10.0.0.7:8000/v2");
  for (const char* bad : {"", "ollama", "=http://x", "nothing=http://x:1", "a b:ollama=http://x:1", "ollama=ftp://x",
                          "ollama=http://x:1/?a=b", "ollama=http://x:99999"}) {
    EXPECT_FALSE(parse_service(bad).ok()) << bad;
  }
}

TEST(ServiceConfig, APasswordInAUrlIsRefusedAndNotRepeated) {
  const auto refused = parse_service("openai=http://me:hunter2@host:1/");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message.find("hunter2"), std::string::npos);
}

TEST(ServiceConfig, KeysComeFromTheEnvironmentOrAFile) {
  Scratch scratch;
  std::ofstream(scratch.file("key")) << "  from-file \nsecond line";
  const auto env = environment({{"OPENAI_API_KEY", "sk-1"},
                                {"REPLICATE_API_TOKEN_FILE", scratch.file("key")},
                                {"OPENAI_BASE_URL", "http://127.0.0.1:9/v1"},
                                {"GRANGE_SERVICE_KEY_MY_BOX", "k2"}});
  const auto found = services_by_key(env);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].kind, "remote-openai");
  EXPECT_EQ(found[0].key, "sk-1");
  EXPECT_EQ(found[0].url, "http://127.0.0.1:9");
  EXPECT_EQ(found[1].kind, "replicate");
  EXPECT_EQ(found[1].key, "from-file");
  EXPECT_EQ(key_of(env, {"my-box", "openai", "", ""}), "k2");
  // A local OpenAI-compatible server is not sent the key of the real one.
  EXPECT_EQ(key_of(env, {"", "openai", "", ""}), "");
  EXPECT_EQ(engine_of("openai"), "llm");
  EXPECT_EQ(engine_of("remote-openai"), "remote:openai");
  EXPECT_EQ(engine_of("replicate"), "remote:replicate");
  EXPECT_EQ(split_list(" a , ,b,"), (std::vector<std::string>{"a", "b"}));
}

// ----------------------------------------------------------------------------------------------------------- answers

TEST(Answers, OllamasModels) {
  pb::Service out;
  ASSERT_TRUE(ollama_tags(R"({"models":[
      {"name":"llama3.2:latest","size":2019393189,"digest":"a80c","details":{"family":"llama","parameter_size":"3.2B",
       "quantization_level":"Q4_K_M"},"capabilities":["completion"]},
      {"model":"nomic","size":5,"details":{"family":"nomic-bert"}},
      {"name":"e","capabilities":["embedding"]},
      {"name":""},{"name":7},"x",{"name":"e"}]})",
                          out));
  ASSERT_EQ(out.models_size(), 3);
  EXPECT_EQ(out.models(0).quantization(), "Q4_K_M");
  EXPECT_EQ(out.models(0).bytes(), 2019393189u);
  EXPECT_EQ(out.models(0).kind(), "llm");
  EXPECT_EQ(out.models(1).kind(), "embedding");
  EXPECT_EQ(out.models(2).kind(), "embedding");
  ollama_loaded(R"({"models":[{"name":"llama3.2:latest","size":100,"size_vram":900},{"name":"other"}]})", out);
  EXPECT_TRUE(out.models(0).loaded());
  EXPECT_EQ(out.models(0).gpu_bytes(), 100u);  // never more than all of it
  EXPECT_FALSE(out.models(1).loaded());
}

TEST(Answers, AreBoundedAndTotal) {
  std::string many = R"({"models":[)";
  for (int i = 0; i < 3000; ++i) many += (i ? ",{\"name\":\"m" : "{\"name\":\"m") + std::to_string(i) + "\"}";
  pb::Service out;
  EXPECT_TRUE(ollama_tags(many + "]}", out));
  EXPECT_EQ(static_cast<std::size_t>(out.models_size()), kModels);
  pb::Service long_names;
  EXPECT_TRUE(ollama_tags(R"({"models":[{"name":")" + std::string(300, 'x') + R"("}]})", long_names));
  EXPECT_EQ(long_names.models_size(), 0);
  for (const std::string body : {"", "null", "[]", "{}", "{\"models\":7}", "{\"data\":[7],\"object\":\"list\"}", "\xff",
                                 "{\"system\":{},\"devices\":[]}"}) {
    pb::Service into;
    EXPECT_FALSE(ollama_version(body)) << body;
    EXPECT_FALSE(ollama_tags(body, into)) << body;
    EXPECT_EQ(llamacpp_health(200, body), Health::other) << body;
    EXPECT_FALSE(llamacpp_props(body)) << body;
    EXPECT_FALSE(openai_models(body)) << body;
    EXPECT_FALSE(lmstudio_models(body)) << body;
    EXPECT_FALSE(comfyui_stats(body, into)) << body;
    EXPECT_FALSE(comfyui_checkpoints(body, into)) << body;
  }
}

// Bytes of good answers, changed at random: whatever comes of it is read or refused, never more than the bounds.
TEST(Answers, SurviveAnyBytes) {
  const std::vector<std::string> good{
      R"({"version":"1","models":[{"name":"a","size":1,"details":{"family":"f"},"capabilities":["completion"]}]})",
      R"({"object":"list","data":[{"id":"x.gguf","owned_by":"llamacpp","state":"loaded","status":{"value":"loaded"},"meta":{"size":1}}]})",
      R"({"default_generation_settings":{"n_ctx":4096},"total_slots":3,"model_path":"/m/t.gguf","build_info":"b1"})",
      R"({"system":{"comfyui_version":"1"},"devices":[{"name":"cuda:0"}]})",
      R"({"CheckpointLoaderSimple":{"input":{"required":{"ckpt_name":[["a","b"],{}]}}}})"};
  Prng prng(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good[prng.next() % good.size()];
    for (auto n = prng.next() % 6; n > 0; --n) {
      const std::size_t at = prng.next() % bytes.size();
      switch (prng.next() % 3) {
        case 0:
          bytes[at] = static_cast<char>(prng.next());
          break;
        case 1:
          bytes.resize(at + 1);
          break;
        default:
          bytes.insert(at, bytes.substr(at, prng.next() % 20));
          break;
      }
    }
    pb::Service into;
    ollama_version(bytes);
    ollama_tags(bytes, into);
    ollama_loaded(bytes, into);
    comfyui_stats(bytes, into);
    comfyui_checkpoints(bytes, into);
    llamacpp_health(static_cast<int>(prng.next() % 600), bytes);
    llamacpp_props(bytes);
    openai_models(bytes);
    lmstudio_models(bytes);
    std::string wire;
    EXPECT_TRUE(into.SerializeToString(&wire)) << bytes;  // it can be told to the server
  }
}

TEST(Answers, LlamacppMayStillBeLoading) {
  EXPECT_EQ(llamacpp_health(503, R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"}})"),
            Health::loading);
  EXPECT_EQ(llamacpp_health(200, R"({"status":"ok"})"), Health::ready);
  EXPECT_EQ(llamacpp_health(503, "<html>busy</html>"), Health::other);
  const auto models = openai_models(
      R"({"object":"list","data":[{"id":"../models/Tiny-Q4.gguf","object":"model","owned_by":"llamacpp","meta":null}]})");
  ASSERT_TRUE(models.has_value());
  ASSERT_EQ(models->models.size(), 1u);
  EXPECT_EQ(models->models[0].name(), "Tiny-Q4.gguf");
}

TEST(Answers, ComfyuisCheckpointsInBothForms) {
  pb::Service old_form, new_form;
  EXPECT_TRUE(comfyui_checkpoints(
      R"({"CheckpointLoaderSimple":{"input":{"required":{"ckpt_name":[["a.safetensors","b"],{}]}}}})", old_form));
  EXPECT_EQ(old_form.models_size(), 2);
  EXPECT_EQ(old_form.models(0).kind(), "checkpoint");
  EXPECT_TRUE(comfyui_checkpoints(
      R"({"CheckpointLoaderSimple":{"input":{"required":{"ckpt_name":["COMBO",{"options":["c"]}]}}}})", new_form));
  ASSERT_EQ(new_form.models_size(), 1);
  EXPECT_EQ(new_form.models(0).name(), "c");
}

TEST(Answers, NamesOfOneModel) {
  EXPECT_TRUE(same_model("ollama", "llama3.2:latest", "llama3.2"));
  EXPECT_TRUE(same_model("ollama", "llama3.2", "llama3.2:latest"));
  EXPECT_FALSE(same_model("ollama", "llama3.2:1b", "llama3.2"));
  EXPECT_TRUE(same_model("llamacpp", "tiny.gguf", "../models/tiny.gguf"));
  EXPECT_TRUE(same_model("llamacpp", "tiny.gguf", "tiny"));
  EXPECT_FALSE(same_model("openai", "a:latest", "a"));
}

// -------------------------------------------------------------------------------------------------- files and fits

TEST(ModelFiles, OnlySafeNames) {
  ASSERT_TRUE(model_path("/r", "gguf", "a.gguf").ok());
  EXPECT_EQ(*model_path("/r", "a/b", "c"), "/r/a/b/c");
  for (const auto& [folder, name] : std::vector<std::pair<std::string, std::string>>{{"..", "x"},
                                                                                     {"a", "../x"},
                                                                                     {"/etc", "x"},
                                                                                     {"a", ""},
                                                                                     {"a", ".x"},
                                                                                     {".a", "x"},
                                                                                     {"a", "x.part"},
                                                                                     {"a", "x.part.json"},
                                                                                     {"a", std::string("x\0y", 3)},
                                                                                     {"a", "x\ny"},
                                                                                     {"a", "\xff"},
                                                                                     {"a//b", "x"},
                                                                                     {"", "x"},
                                                                                     {"a", std::string(201, 'x')}}) {
    EXPECT_FALSE(model_path("/r", folder, name).ok()) << folder << " / " << name;
  }
  EXPECT_EQ(default_folder("x.gguf"), "gguf");
  EXPECT_EQ(default_folder("x.safetensors"), "checkpoints");
}

TEST(ModelFiles, ListsWhatIsWhole) {
  Scratch scratch;
  const std::string root = scratch.file("models");
  std::filesystem::create_directories(root + "/gguf");
  std::filesystem::create_directories(root + "/checkpoints");
  std::ofstream(root + "/gguf/broken.gguf") << "not a model";
  std::ofstream(root + "/checkpoints/sd.safetensors") << "12345";
  std::ofstream(root + "/checkpoints/next.safetensors.part") << "1";
  std::ofstream(root + "/checkpoints/next.safetensors.part.json") << "{}";
  std::filesystem::create_symlink("/etc/passwd", root + "/checkpoints/link");
  const auto all = list_model_files(root, 10);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].model.name(), "checkpoints/sd.safetensors");
  EXPECT_EQ(all[0].model.kind(), "checkpoint");
  EXPECT_EQ(all[0].model.bytes(), 5u);
  EXPECT_FALSE(all[1].facts.has_value());
  EXPECT_TRUE(list_model_files(root + "/nothing", 10).empty());
}

TEST(Fits, OfWhatIsKnown) {
  ai::ModelFacts facts;
  facts.weights = 4 * GiB;
  facts.block_count = 32;
  facts.head_count = 32;
  facts.head_count_kv = 8;
  facts.embedding_length = 4096;
  facts.context_length = 8192;
  facts.vocabulary = 32'000;
  pb::Service service;
  for (const char* name : {"known", "unknown", "runs"}) service.add_models()->set_name(name);
  service.mutable_models(2)->set_loaded(true);
  service.mutable_models(2)->set_max_context(2048);
  ai::MachineFacts small, large;
  small.ram_total = small.ram_available = 2 * GiB;
  large.ram_total = large.ram_available = 64 * GiB;
  const FactsCache cache{{facts_key(service.models(0)), facts}};
  pb::Service on_large = service;
  judge(service, cache, small);
  judge(on_large, cache, large);
  EXPECT_EQ(service.models(0).fit(), "FAIL");
  EXPECT_NE(service.models(0).fit_json().find("weights"), std::string::npos);
  EXPECT_EQ(on_large.models(0).fit(), "GOOD");
  EXPECT_EQ(on_large.models(0).good_context(), 8192u);
  EXPECT_EQ(service.models(1).fit(), "UNKNOWN");
  // What is loaded with a context that cannot be changed is no estimate.
  EXPECT_EQ(service.models(2).fit(), "GOOD");
  EXPECT_EQ(service.models(2).good_context(), 2048u);
}

TEST(Ranked, ReadyAndLoadedFirst) {
  const auto make = [](const char* name, const char* kind, const char* state, const char* model, bool loaded,
                       const char* fit) {
    ServiceInfo out;
    out.shown.set_name(name);
    out.shown.set_kind(kind);
    out.shown.set_state(state);
    pb::Model& m = *out.shown.add_models();
    m.set_name(model);
    m.set_loaded(loaded);
    m.set_fit(fit);
    return out;
  };
  const std::vector<ServiceInfo> all{make("down", "ollama", "down", "m:latest", true, "GOOD"),
                                     make("fail", "ollama", "ready", "m:latest", false, "FAIL"),
                                     make("cold", "ollama", "ready", "m:latest", false, "GOOD"),
                                     make("warm", "ollama", "ready", "m", true, "RISK"),
                                     make("slow", "ollama", "loading", "m", true, "GOOD"),
                                     make("pics", "comfyui", "ready", "m", true, "GOOD"),
                                     make("other", "ollama", "ready", "n", true, "GOOD")};
  const auto names = [&](std::string_view name, std::string_view model) {
    std::string out;
    for (const auto& one : ranked(all, {"ollama"}, name, model)) out += one.shown.name() + " ";
    return out;
  };
  EXPECT_EQ(names("", "m"), "warm cold fail slow ");
  EXPECT_EQ(names("cold", "m"), "cold ");
  EXPECT_EQ(names("", "nothing"), "");
  EXPECT_EQ(names("", ""), "fail cold warm other slow ");
}

// ------------------------------------------------------------------------------------------------------------- looks

class Looks : public NetTest {
 protected:
  ~Looks() override {
    on_loop([&] { look_.reset(); });
  }
  // Answers by path; anything else is a 404.
  std::unique_ptr<net::Listener> scripted(std::map<std::string, HttpResponse> answers) {
    return serve(on_http([this, answers = std::move(answers)](HttpExchangePtr e) {
      asked.push_back(e->request().method + " " + e->request().path);
      const auto it = answers.find(e->request().path);
      e->respond(it == answers.end() ? HttpResponse{404, {}, "no"} : it->second);
    }));
  }
  Looked look_at(const std::string& kind, const std::string& url, bool named, const std::string& key = "") {
    std::optional<Looked> out;
    on_loop([&] {
      look_ = look(client, {kind, url, key, named}, cache, [&](Looked looked) {
        out = std::move(looked);
        look_.reset();  // its owner may let go of it at once
      });
    });
    EXPECT_TRUE(eventually([&] { return out.has_value(); }));
    return out.value_or(Looked{});
  }
  static HttpResponse body(std::string text, int status = 200) { return {status, {}, std::move(text)}; }

  net::HttpClient client{loop};
  FactsCache cache;
  std::vector<std::string> asked;
  std::unique_ptr<Look> look_;
};

const char* const kTags = R"({"models":[{"name":"m:latest","size":1000,"digest":"d"}]})";

TEST_F(Looks, OllamaIsAskedForFactsOnce) {
  const auto server = scripted({{"/api/version", body(R"({"version":"0.5.1"})")},
                                {"/api/tags", body(kTags)},
                                {"/api/ps", body(R"({"models":[{"name":"m:latest","size":9,"size_vram":9}]})")},
                                {"/api/show", body(R"({"model_info":{"general.architecture":"llama",
                                  "llama.block_count":2,"llama.context_length":2048,"llama.embedding_length":64,
                                  "llama.attention.head_count":4}})")}});
  for (int i = 0; i < 2; ++i) {
    const Looked seen = look_at("ollama", url(*server, ""), false);
    EXPECT_TRUE(seen.is_it);
    EXPECT_EQ(seen.seen.state(), "ready");
    EXPECT_EQ(seen.seen.version(), "0.5.1");
    ASSERT_EQ(seen.seen.models_size(), 1);
    EXPECT_TRUE(seen.seen.models(0).loaded());
  }
  on_loop([&] {
    EXPECT_EQ(std::count(asked.begin(), asked.end(), "POST /api/show"), 1);
    ASSERT_EQ(cache.size(), 1u);
    EXPECT_EQ(cache.begin()->second.context_length, 2048u);
  });
}

TEST_F(Looks, AModelThatSaysNothingOfItselfIsNotAskedAgain) {
  const auto server = scripted({{"/api/version", body(R"({"version":"0.5.1"})")}, {"/api/tags", body(kTags)}});
  look_at("ollama", url(*server, ""), false);
  const Looked seen = look_at("ollama", url(*server, ""), false);
  EXPECT_TRUE(seen.is_it);  // and /api/ps may be missing
  on_loop([&] { EXPECT_EQ(std::count(asked.begin(), asked.end(), "POST /api/show"), 1); });
}

// At a usual port anything may listen.
TEST_F(Looks, OtherProgramsAreNotTakenForServices) {
  const std::string list = R"({"object":"list","data":[{"id":"x","owned_by":"someone"}]})";
  for (const auto& answers : std::vector<std::map<std::string, HttpResponse>>{
           {},
           {{"/", body("hello")}, {"/health", body(R"({"status":"ok"})")}},
           {{"/health", body("ok")}, {"/api/version", body(R"({"version":7})")}},
           {{"/api/version", body(R"({"version":"1"})")}, {"/api/tags", body("[]")}},
           {{"/health", body(R"({"status":"ok"})")}, {"/v1/models", body(list)}},
           {{"/system_stats", body(R"({"system":{"os":"x"}})")}},
           {{"/system_stats", body("<html>", 200)}}}) {
    const auto server = scripted(answers);
    for (const char* kind : {"ollama", "llamacpp", "comfyui", "openai"}) {
      const Looked seen = look_at(kind, url(*server, ""), false);
      EXPECT_FALSE(seen.is_it) << kind;
      EXPECT_EQ(seen.seen.models_size(), 0);
      EXPECT_NE(seen.seen.note(), "");
    }
  }
}

TEST_F(Looks, AnOpenAiCompatibleUrlIsTakenWhenAPersonNamesIt) {
  const auto server = scripted({{"/v1/models", body(R"({"object":"list","data":[{"id":"x","owned_by":"someone"}]})")}});
  const Looked named = look_at("openai", url(*server, ""), true);
  EXPECT_TRUE(named.is_it);
  ASSERT_EQ(named.seen.models_size(), 1);
  EXPECT_EQ(named.seen.models(0).name(), "x");
}

TEST_F(Looks, VllmAndLmStudioShowWhoTheyAre) {
  const auto vllm = scripted({{"/v1/models", body(R"({"object":"list","data":[{"id":"q","owned_by":"vllm",
                                 "max_model_len":4096}]})")},
                              {"/version", body(R"({"version":"0.9"})")}});
  const Looked one = look_at("openai", url(*vllm, ""), false);
  EXPECT_TRUE(one.is_it);
  EXPECT_EQ(one.flavour, "vllm");
  EXPECT_EQ(one.seen.version(), "0.9");
  ASSERT_EQ(one.seen.models_size(), 1);
  EXPECT_EQ(one.seen.models(0).max_context(), 4096u);
  const auto studio =
      scripted({{"/v1/models", body(R"({"object":"list","data":[]})")},
                {"/api/v0/models", body(R"({"object":"list","data":[{"id":"g","type":"llm","state":"not-loaded",
          "quantization":"Q4_0","max_context_length":8192}]})")}});
  const Looked two = look_at("openai", url(*studio, ""), false);
  EXPECT_TRUE(two.is_it);
  EXPECT_EQ(two.flavour, "lmstudio");
  ASSERT_EQ(two.seen.models_size(), 1);
  EXPECT_FALSE(two.seen.models(0).loaded());
  EXPECT_EQ(two.seen.models(0).context(), 8192u);
}

TEST_F(Looks, LlamacppLoadingThenReady) {
  const auto loading = scripted(
      {{"/health", body(R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"}})", 503)}});
  const Looked first = look_at("llamacpp", url(*loading, ""), false);
  EXPECT_TRUE(first.is_it);
  EXPECT_EQ(first.seen.state(), "loading");
  const auto ready = scripted(
      {{"/health", body(R"({"status":"ok"})")},
       {"/props", body(R"({"default_generation_settings":{"n_ctx":4096},"total_slots":3,"model_path":"/m/t.gguf",
                           "build_info":"b1"})")},
       {"/v1/models", body(R"({"object":"list","data":[{"id":"/m/t.gguf","owned_by":"llamacpp",
          "meta":{"n_ctx_train":8192,"n_params":100,"size":500}}]})")}});
  const Looked then = look_at("llamacpp", url(*ready, ""), false);
  EXPECT_EQ(then.seen.state(), "ready");
  EXPECT_EQ(then.seen.parallel(), 3u);
  EXPECT_EQ(then.file, "/m/t.gguf");
  ASSERT_EQ(then.seen.models_size(), 1);
  EXPECT_EQ(then.seen.models(0).name(), "t.gguf");
  EXPECT_EQ(then.seen.models(0).max_context(), 4096u);
  EXPECT_EQ(then.seen.models(0).bytes(), 500u);
}

TEST_F(Looks, AKeyIsSentAndItsLackIsSaid) {
  std::string authorization;
  const auto server = serve(on_http([&](HttpExchangePtr e) {
    const auto it = e->request().headers.find("authorization");
    authorization = it == e->request().headers.end() ? "" : it->second;
    e->respond(authorization == "Bearer k" ? body(R"({"object":"list","data":[]})") : body("no", 401));
  }));
  const Looked without = look_at("openai", url(*server, ""), true);
  EXPECT_FALSE(without.is_it);
  EXPECT_NE(without.seen.note().find("GRANGE_SERVICE_KEY_"), std::string::npos);
  EXPECT_TRUE(look_at("openai", url(*server, ""), true, "k").is_it);
}

TEST_F(Looks, AKeyThatAServiceRepeatsIsNotShown) {
  const std::string key = "local-key-0123456789";
  const auto server = scripted({{"/v1/models", body("no Bearer " + key + " here", 400)}});
  const Looked seen = look_at("openai", url(*server, ""), true, key);
  EXPECT_FALSE(seen.is_it);
  EXPECT_NE(seen.seen.note().find("no Bearer [key] here"), std::string::npos) << seen.seen.note();
}

TEST_F(Looks, AnAnswerThatIsTooLongIsNoAnswer) {
  const auto server = scripted({{"/api/version", body(R"({"version":")" + std::string(5 * MiB, 'x') + "\"}")}});
  EXPECT_FALSE(look_at("ollama", url(*server, ""), true).is_it);
}

// ---------------------------------------------------------------------------------------------------------- watching

class Watching : public Looks {
 protected:
  ~Watching() override {
    on_loop([&] { services.reset(); });
  }
  void watch(std::vector<std::string> configured, const std::string& folder = "") {
    on_loop([&] {
      ServicesOptions options;
      options.configured = std::move(configured);
      options.probe = false;
      options.every = Millis{20};
      options.folder = folder;
      services = make_services(loop, client, std::move(options));
      services->on_change([this] { ++changes; });
      services->start();
    });
  }
  std::string state(const std::string& name) {
    for (const ServiceInfo& one : services->list())
      if (one.shown.name() == name) return one.shown.state();
    return "absent";
  }
  std::unique_ptr<Services> services;
  int changes = 0;
};

TEST_F(Watching, OnlyWhatShowsIsAChange) {
  int looks = 0;
  std::string tags = kTags;
  auto server = serve(on_http([&](HttpExchangePtr e) {
    const std::string& path = e->request().path;
    looks += path == "/api/version";
    e->respond(path == "/api/version" ? body(R"({"version":"1"})")
               : path == "/api/tags"  ? body(tags)
               : path == "/api/ps"    ? body(R"({"models":[]})")
                                      : body("{}", 404));
  }));
  const auto port = server->port();
  watch({"mine:ollama=" + url(*server, "")});
  ASSERT_TRUE(eventually([&] { return state("mine") == "ready" && looks >= 5; }));
  on_loop([&] {
    EXPECT_EQ(changes, 1);
    EXPECT_TRUE(services->find({"ollama"}, "", "m").has_value());
    EXPECT_FALSE(services->find({"ollama"}, "", "n").has_value());
    tags = R"({"models":[{"name":"n"}]})";
    services->look_again();
  });
  ASSERT_TRUE(eventually([&] { return services->find({"ollama"}, "mine", "n").has_value(); }));
  on_loop([&] { EXPECT_EQ(changes, 2); });
  // Gone: said, with why, and no model of it any more.
  server.reset();
  ASSERT_TRUE(eventually([&] { return state("mine") == "down"; }));
  on_loop([&] {
    EXPECT_FALSE(services->find({"ollama"}, "", "n").has_value());
    EXPECT_NE(services->list().front().shown.note(), "");
  });
  server = serve(on_http([&](HttpExchangePtr e) {
                   e->respond(e->request().path == "/api/version" ? body(R"({"version":"1"})") : body(tags));
                 }),
                 {.port = port});
  EXPECT_TRUE(eventually([&] { return state("mine") == "ready"; }));
}

TEST_F(Watching, NamesAreUniqueAndSecretsStayInside) {
  ::setenv("GRANGE_SERVICE_KEY_A", "very-secret", 1);
  const auto server = scripted({{"/v1/models", body(R"({"object":"list","data":[]})")}});
  watch({"openai=" + url(*server, ""), "openai=" + url(*server, "/x"), "a:openai=" + url(*server, "/y"), "nonsense"});
  ::unsetenv("GRANGE_SERVICE_KEY_A");
  on_loop([&] {
    ASSERT_EQ(services->list().size(), 3u);
    EXPECT_EQ(services->list()[1].shown.name(), "openai-2");
    EXPECT_EQ(services->list()[2].key, "very-secret");
    for (const ServiceInfo& one : services->list())
      EXPECT_EQ(one.shown.SerializeAsString().find("very-secret"), std::string::npos);
  });
}

TEST_F(Watching, TheWorkersOwnFilesAreListed) {
  Scratch scratch;
  const std::string root = scratch.file("models");
  std::filesystem::create_directories(root + "/checkpoints");
  watch({}, root);
  on_loop([&] {
    std::ofstream(root + "/checkpoints/a.safetensors") << "x";
    services->look_again();
  });
  ASSERT_TRUE(eventually([&] { return !services->list().empty(); }));
  on_loop([&] {
    EXPECT_EQ(services->list()[0].shown.kind(), "files");
    EXPECT_EQ(services->list()[0].shown.models(0).name(), "checkpoints/a.safetensors");
    EXPECT_FALSE(services->find({"files"}, "", "").has_value());  // they answer nothing
  });
}

}  // namespace
}  // namespace grange::worker
