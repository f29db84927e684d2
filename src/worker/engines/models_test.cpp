// The models engine: downloads that stop and go on, pulls that fail inside a 200, removals and resets.
#include "worker/engines/download.hpp"
#include "worker/engines/engine_testing.hpp"
#include "worker/sha256.hpp"

namespace grange::worker {
namespace {

namespace json = boost::json;
using net::testing::contents;
namespace fs = std::filesystem;

class Models : public EngineTest {
 protected:
  Models() {
    on_loop([&] { engine = make_models_engine(*context); });
    spec.set_engine("models");
  }
  std::unique_ptr<net::Listener> scripted(std::function<void(HttpExchangePtr)> handler) {
    return serve(net::testing::on_http([this, handler = std::move(handler)](HttpExchangePtr e) {
      asked.push_back(e->request().method + " " + e->request().path);
      handler(std::move(e));
    }));
  }
  // A file server that knows ranges; it breaks after `break_after` bytes of each answer (0: never).
  struct FileServer {
    std::string bytes = {}, etag = "\"1\"";
    std::size_t break_after = 0;
    bool hang = false;
    std::vector<std::string> ranges = {};
    std::vector<std::string> authorizations = {};
    HttpExchangePtr hung = nullptr;  // one that was left half done
    void operator()(const HttpExchangePtr& e) {
      auto& headers = e->request().headers;
      ranges.push_back(headers.count("range") ? headers["range"] : "");
      authorizations.push_back(headers.count("authorization") ? headers["authorization"] : "");
      std::size_t from = 0;
      int status = 200;
      std::map<std::string, std::string> out;
      if (!etag.empty()) out["ETag"] = etag;
      if (headers.count("range") != 0 && headers["if-range"] == etag) {
        from = std::stoul(headers["range"].substr(6));
        status = 206;
        if (from >= bytes.size()) {
          out["Content-Range"] = "bytes */" + std::to_string(bytes.size());
          return e->respond({416, out, ""});
        }
        out["Content-Range"] = "bytes " + std::to_string(from) + "-" + std::to_string(bytes.size() - 1) + "/" +
                               std::to_string(bytes.size());
      }
      const std::string rest = bytes.substr(from);
      if (break_after == 0 || rest.size() <= break_after) return e->respond({status, out, rest});
      e->start_stream({status, out, ""});
      e->write(rest.substr(0, break_after));
      if (hang) hung = e;
      if (!hang && status == 206) e->end_stream();  // short of what it announced; else the connection breaks
    }
  };
  void fetch(const std::string& url, const std::string& sha = "", const std::string& name = "m.gguf") {
    pb::ModelsSpec& m = *spec.mutable_models();
    m.set_op("fetch");
    m.set_model(name);
    m.set_url(url);
    m.set_sha256(sha);
    run(spec, next++);
  }
  const HeardHost::End& last() {
    EXPECT_TRUE(ended(next));
    return host.ends.back();
  }
  std::string file(const std::string& name = "gguf/m.gguf") const { return scratch.file("models/" + name); }
  std::uintmax_t part() const {
    std::error_code missing;
    return fs::file_size(file() + ".part", missing);
  }
  static std::string noise(std::size_t n) {
    std::string out(n, '\0');
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<char>(i * 2654435761u >> 13);
    return out;
  }

  pb::JobSpec spec;
  std::uint32_t next = 0;
  std::vector<std::string> asked;
};

TEST_F(Models, FetchesAndChecks) {
  FileServer files{.bytes = noise(300'000)};
  const auto server = scripted(std::ref(files));
  fetch(url(*server, "/m"), sha256(files.bytes));
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(contents(file()), files.bytes);
  EXPECT_EQ(last().value().at("bytes").to_number<std::size_t>(), files.bytes.size());
  EXPECT_FALSE(fs::exists(file("gguf/m.gguf.part")));
  EXPECT_FALSE(fs::exists(file("gguf/m.gguf.part.json")));
  EXPECT_FALSE(host.of("sync_progress").empty());
  EXPECT_EQ(host.progress_done, host.progress_total);
  EXPECT_GT(services.looks, 0);
  // Again: it is there.
  fetch(url(*server, "/m"), sha256(files.bytes));
  EXPECT_EQ(last().value().at("was_there"), true);
  EXPECT_EQ(files.ranges.size(), 1u);
}

TEST_F(Models, WrongBytesAreNotKept) {
  FileServer files{.bytes = "something else"};
  const auto server = scripted(std::ref(files));
  fetch(url(*server, "/m"), sha256("what was wanted"));
  EXPECT_EQ(last().result.exception(), "checksum");
  EXPECT_TRUE(last().result.permanent());
  EXPECT_TRUE(fs::is_empty(file("gguf")));
}

TEST_F(Models, GoesOnAfterACancel) {
  FileServer files{.bytes = noise(500'000), .break_after = 200'000, .hang = true};
  const auto server = scripted(std::ref(files));
  fetch(url(*server, "/m"), sha256(files.bytes));
  ASSERT_TRUE(eventually([&] { return part() == 200'000; }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::soft); });
  EXPECT_EQ(last().result.failure(), pb::FAILURE_CANCELLED);
  EXPECT_FALSE(fs::exists(file()));
  EXPECT_TRUE(fs::exists(file() + ".part"));
  EXPECT_TRUE(fs::exists(file() + ".part.json"));
  on_loop([&] {
    files.hung.reset();
    files.break_after = 0;
  });
  fetch(url(*server, "/m"), sha256(files.bytes));
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(last().value().at("resumed_from").to_number<int>(), 200'000);
  EXPECT_EQ(contents(file()), files.bytes);
  EXPECT_EQ(files.ranges.back(), "bytes=200000-");
  EXPECT_FALSE(fs::exists(file() + ".part.json"));
}

TEST_F(Models, AFileThatChangedIsFetchedWhole) {
  FileServer files{.bytes = noise(500'000), .break_after = 200'000, .hang = true};
  const auto server = scripted(std::ref(files));
  fetch(url(*server, "/m"));
  ASSERT_TRUE(eventually([&] { return part() == 200'000; }));
  on_loop([&] {
    engine->stop(task_of(0), 1, StopHow::soft);
    files.hung.reset();
    files.break_after = 0;
    files.bytes = std::string(400'000, 'n');
    files.etag = "\"2\"";
  });
  fetch(url(*server, "/m"));
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(contents(file()), files.bytes);
}

// Without anything to tell its parts by, nothing stays.
TEST_F(Models, APartThatCannotGoOnIsRemoved) {
  FileServer files{.bytes = noise(500'000), .etag = "", .break_after = 200'000, .hang = true};
  const auto server = scripted(std::ref(files));
  fetch(url(*server, "/m"));
  ASSERT_TRUE(eventually([&] { return part() == 200'000; }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::soft); });
  EXPECT_TRUE(fs::is_empty(file("gguf")));
  on_loop([&] { files.hung.reset(); });
}

TEST_F(Models, TheServersOwnBlobsCarryTheToken) {
  FileServer files{.bytes = "bytes of a blob"};
  const auto server = scripted(std::ref(files));
  context->server_url = url(*server, "");
  on_loop([&] { engine = make_models_engine(*context); });
  fetch("", sha256(files.bytes));
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(asked.back(), "GET /api/blobs/" + sha256(files.bytes));
  EXPECT_EQ(files.authorizations.back(), "Bearer the-token");
}

TEST_F(Models, FollowsRedirectsWithoutItsToken) {
  FileServer files{.bytes = "x"};
  const auto target = scripted(std::ref(files));
  const auto server = scripted([&](HttpExchangePtr e) {
    e->respond(
        {302, {{"Location", e->request().path == "/api/blobs/" + sha256("x") ? "/second" : url(*target, "/t")}}, ""});
  });
  context->server_url = url(*server, "");
  on_loop([&] { engine = make_models_engine(*context); });
  fetch("", sha256("x"));
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(files.authorizations.back(), "");
  const auto around = scripted([](HttpExchangePtr e) { e->respond({302, {{"Location", "/again"}}, ""}); });
  fetch(url(*around, "/"), "", "other.gguf");
  EXPECT_FALSE(last().result.ok());
}

TEST(Downloads, ARedirectNeverLeavesTls) {
  EXPECT_EQ(*redirected("https://a/x/y?z", "/w"), "https://a/w");
  EXPECT_EQ(*redirected("https://a/x/y?z=/q", "w"), "https://a/x/w");
  EXPECT_EQ(*redirected("https://a", "w"), "https://a/w");
  EXPECT_EQ(*redirected("https://a/x", "//b/w"), "https://b/w");
  EXPECT_EQ(*redirected("https://a/x", "https://b/w"), "https://b/w");
  EXPECT_EQ(*redirected("http://a/x", "https://b/w"), "https://b/w");
  EXPECT_EQ(*redirected("http://a/x", "http://b/w"), "http://b/w");
  const auto down = redirected("https://a/x", "http://a/x");
  ASSERT_FALSE(down.ok());
  EXPECT_NE(down.error().message.find("https://"), std::string::npos);
  for (const char* bad : {"ftp://b/w", "file:///etc/passwd", "ws://b/w", "http://"})
    EXPECT_FALSE(redirected("http://a/x", bad).ok()) << bad;
}

TEST_F(Models, ARedirectThatIsNotFollowedIsSaid) {
  const auto server = scripted([](HttpExchangePtr e) { e->respond({302, {{"Location", "ftp://elsewhere/m"}}, ""}); });
  fetch(url(*server, "/m"));
  EXPECT_FALSE(last().result.ok());
  EXPECT_NE(last().result.message().find("not followed"), std::string::npos) << last().result.message();
  EXPECT_EQ(asked.size(), 1u) << "not tried again";
}

TEST_F(Models, WhatIsNotThereIsSaid) {
  const auto server = scripted([](HttpExchangePtr e) { e->respond({404, {}, "nothing here"}); });
  fetch(url(*server, "/m"));
  EXPECT_EQ(last().result.exception(), "not_found");
  EXPECT_TRUE(last().result.permanent());
  EXPECT_TRUE(fs::is_empty(file("gguf")));
}

TEST_F(Models, UnsafeNamesAreRefused) {
  for (const char* name : {"../x", "a/b", ".x", "x.part"}) {
    fetch("http://127.0.0.1:1/x", "", name);
    EXPECT_EQ(last().result.exception(), "refused") << name;
    EXPECT_TRUE(last().result.permanent());
  }
}

TEST_F(Models, MoreThanWasAnnouncedIsNotWritten) {
  const auto server = scripted([](HttpExchangePtr e) {
    e->start_stream({206, {{"ETag", "\"1\""}, {"Content-Range", "bytes 50-99/100"}}, ""});
    for (int i = 0; i < 4; ++i) e->write(std::string(1'000, 'x'));
    e->end_stream();
  });
  const std::string from = url(*server, "/m");
  fs::create_directories(file("gguf"));
  std::ofstream(file() + ".part") << std::string(50, 'x');
  std::ofstream(file() + ".part.json") << json::serialize(
      json::object{{"url", from}, {"sha256", ""}, {"etag", "\"1\""}, {"last_modified", ""}});
  fetch(from);
  EXPECT_FALSE(last().result.ok());
  EXPECT_NE(last().result.message().find("more than the 100 bytes"), std::string::npos) << last().result.message();
  EXPECT_EQ(asked.size(), 1u);
  EXPECT_TRUE(fs::is_empty(file("gguf")));
}

TEST_F(Models, TheDisksRoomIsLookedAtFirst) {
  FileServer files{.bytes = noise(5'000)};
  const auto server = scripted(std::ref(files));
  net::Loop disk;
  disk.start_thread();
  std::optional<EngineFailure> why;
  std::unique_ptr<Download> download;
  on_loop([&] {
    DownloadOptions options{.url = url(*server, "/m"),
                            .path = file(),
                            .sha256 = "",
                            .bearer = "",
                            .reserve = 1'000,
                            .room = [](const std::string&) { return Bytes{5'500}; }};
    download = start_download(loop, disk, client, options,
                              {[](Bytes, Bytes, const std::string&) {}, [](const Downloaded&) {},
                               [&](const EngineFailure& said) { why = said; }});
  });
  ASSERT_TRUE(eventually([&] { return why.has_value(); }));
  EXPECT_EQ(why->name, "storage_full");
  EXPECT_TRUE(fs::is_empty(file("gguf")));
  on_loop([&] { download.reset(); });
}

TEST_F(Models, ABrokenConnectionIsTriedAgainFromThere) {
  FileServer files{.bytes = noise(500'000), .break_after = 200'000};
  const auto server = scripted(std::ref(files));
  net::Loop disk;
  disk.start_thread();
  std::optional<Downloaded> got;
  std::unique_ptr<Download> download;
  on_loop([&] {
    DownloadOptions options{.url = url(*server, "/m"),
                            .path = file(),
                            .sha256 = sha256(files.bytes),
                            .bearer = "",
                            .wait = Millis{1},
                            .room = {}};
    download = start_download(loop, disk, client, options,
                              {[](Bytes, Bytes, const std::string&) {}, [&](const Downloaded& d) { got = d; },
                               [&](const EngineFailure& said) { ADD_FAILURE() << said.message; }});
  });
  ASSERT_TRUE(eventually([&] { return got.has_value(); }));
  EXPECT_EQ(files.ranges, (std::vector<std::string>{"", "bytes=200000-", "bytes=400000-"}));
  EXPECT_EQ(contents(file()), files.bytes);
  on_loop([&] { download.reset(); });
}

// --------------------------------------------------------------------------------------------------------------- pull

class Pulls : public Models {
 protected:
  void pull(std::vector<std::string> lines, int status = 200) {
    server = scripted([lines = std::move(lines), status](HttpExchangePtr e) {
      e->start_stream({status, {{"Content-Type", "application/x-ndjson"}}, ""});
      for (const std::string& one : lines) e->write(one);
      e->end_stream();
    });
    on_loop([&] {
      services.all.clear();
      services.add("ollama", "ollama", url(*server, ""), {});
    });
    spec.mutable_models()->set_op("pull");
    spec.mutable_models()->set_model("llama3.2");
    run(spec, next++);
  }
  std::unique_ptr<net::Listener> server;
};

TEST_F(Pulls, SumsItsLayers) {
  pull({"{\"status\":\"pulling manifest\"}\n",
        "{\"status\":\"pulling aa\",\"digest\":\"sha256:aa\",\"total\":100}\n{\"status\":\"pulling "
        "aa\",\"digest\":\"sha256:aa\",",
        "\"total\":100,\"completed\":40}\n{\"status\":\"pulling "
        "bb\",\"digest\":\"sha256:bb\",\"total\":10,\"completed\":10}\n",
        "{\"status\":\"success\"}"});  // and no line end
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(last().value().at("bytes").to_number<int>(), 110);
  EXPECT_EQ(last().value().at("service"), "ollama");
  EXPECT_EQ(host.progress_total, 110);
  EXPECT_EQ(host.progress_done, 110);
  EXPECT_GT(services.looks, 0);
}

TEST_F(Pulls, AnErrorInsideATwoHundred) {
  pull({"{\"status\":\"pulling manifest\"}\n", "{\"error\":\"pull model manifest: file does not exist\"}\n"});
  EXPECT_FALSE(last().result.ok());
  EXPECT_EQ(last().result.exception(), "missing_model");
  EXPECT_NE(last().result.message().find("llama3.2"), std::string::npos);
}

TEST_F(Pulls, AnEndBeforeSuccessIsNone) {
  pull({"{\"status\":\"pulling manifest\"}\n"});
  EXPECT_FALSE(last().result.ok());
  EXPECT_FALSE(last().result.permanent());
  pull({"{\"error\":\"something broke\"}"}, 500);
  EXPECT_NE(last().result.message().find("something broke"), std::string::npos);
  pull({std::string(100'000, 'x')});  // no line at all
  EXPECT_FALSE(last().result.ok());
}

TEST_F(Pulls, WithoutAnOllamaItSaysSo) {
  spec.mutable_models()->set_op("pull");
  spec.mutable_models()->set_model("m");
  run(spec, next++);
  EXPECT_EQ(last().result.exception(), "unreachable");
}

TEST_F(Pulls, StopClosesTheConnection) {
  bool closed = false;
  HttpExchangePtr open;
  server = scripted([&](HttpExchangePtr e) {
    open = e;
    e->on_closed([&] { closed = true; });
    e->start_stream({200, {}, ""});
    e->write("{\"status\":\"pulling manifest\"}\n");
  });
  services.add("ollama", "ollama", url(*server, ""), {});
  spec.mutable_models()->set_op("pull");
  spec.mutable_models()->set_model("m");
  run(spec, next++);
  ASSERT_TRUE(eventually([&] { return !host.of("sync_progress").empty(); }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::soft); });
  EXPECT_TRUE(eventually([&] { return closed; }));
  on_loop([&] { open.reset(); });
}

// ------------------------------------------------------------------------------------------------- remove and reset

TEST_F(Models, RemovesFromOllamaOrItsOwnFiles) {
  const auto server = scripted([](HttpExchangePtr e) {
    const bool known = e->request().body.find("\"m\"") != std::string::npos;
    e->respond(known ? net::HttpResponse{200, {}, ""}
                     : net::HttpResponse{404, {}, R"({"error":"model 'x' not found"})"});
  });
  services.add("ollama", "ollama", url(*server, ""), {"m:latest", "x"});
  spec.mutable_models()->set_op("remove");
  spec.mutable_models()->set_model("m");
  run(spec, next++);
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_EQ(asked.back(), "DELETE /api/delete");
  spec.mutable_models()->set_model("x");
  run(spec, next++);
  EXPECT_EQ(last().result.exception(), "missing_model");
  fs::create_directories(file("gguf"));
  std::ofstream(file("gguf/own.gguf")) << "x";
  spec.mutable_models()->set_model("gguf/own.gguf");
  run(spec, next++);
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_FALSE(fs::exists(file("gguf/own.gguf")));
  run(spec, next++);
  EXPECT_EQ(last().result.exception(), "missing_model");
}

TEST_F(Models, ResetUnloadsAndWaits) {
  int loaded = 1, polls = 0;
  const auto ollama = scripted([&](HttpExchangePtr e) {
    const std::string& path = e->request().path;
    if (path == "/api/generate") {
      EXPECT_EQ(e->request().body, R"({"model":"m:latest","keep_alive":0})");
      e->respond({200, {}, R"({"done":true,"done_reason":"unload"})"});
    } else if (path == "/api/ps") {
      if (polls++ == 2) loaded = 0;  // it takes a while
      e->respond({200, {}, loaded ? R"({"models":[{"name":"m:latest"}]})" : R"({"models":[]})"});
    } else {
      e->respond({200, {}, R"({"version":"1"})"});
    }
  });
  const auto comfy = scripted([](HttpExchangePtr e) { e->respond({200, {}, "{}"}); });
  const auto llamacpp = scripted([](HttpExchangePtr e) {
    e->respond(
        {200,
         {},
         e->request().path == "/models" ? R"({"data":[{"id":"a","status":{"value":"loaded"}},{"id":"b"}]})" : "{}"});
  });
  services.add("ollama", "ollama", url(*ollama, ""));
  services.add("comfyui", "comfyui", url(*comfy, ""));
  services.add("llamacpp", "llamacpp", url(*llamacpp, ""));
  services.add("files", "files", "");
  spec.mutable_models()->set_op("reset");
  run(spec, next++);
  ASSERT_TRUE(last().result.ok()) << last().result.message();
  EXPECT_TRUE(last().value().at("ready_ms").is_number());
  ASSERT_EQ(last().value().at("services").as_array().size(), 3u);
  EXPECT_EQ(json::serialize(last().value().at("services").as_array()[0].at("unloaded")), R"(["m:latest"])");
  EXPECT_EQ(std::count(asked.begin(), asked.end(), "POST /free"), 1);
  EXPECT_EQ(std::count(asked.begin(), asked.end(), "POST /models/unload"), 1);
  EXPECT_EQ(std::count(asked.begin(), asked.end(), "GET /health"), 1);
  spec.mutable_models()->set_service("nothing");
  run(spec, next++);
  EXPECT_EQ(last().result.exception(), "unreachable");
}

}  // namespace
}  // namespace grange::worker
