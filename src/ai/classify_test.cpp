#include "ai/classify.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/utf8.hpp"

namespace grange::ai {
namespace {

struct Case {
  const char* kind;
  int status;
  std::string text;
  EngineError error;
  bool permanent, elsewhere;
};

const std::string kNotInList =
    R"({"error":{"type":"prompt_outputs_failed_validation","message":"Prompt outputs failed validation","details":"",
    "extra_info":{}},"node_errors":{"4":{"errors":[{"type":"value_not_in_list","message":"Value not in list",
    "details":"ckpt_name: 'x.safetensors' not in ['a.safetensors']","extra_info":{"input_name":"ckpt_name",
    "input_config":null,"received_value":"x.safetensors"}}],"dependent_outputs":["9"],
    "class_type":"CheckpointLoaderSimple"}}})";

TEST(Classify, KnowsEachClassInTheShapesOfEachService) {
  using E = EngineError;
  const std::vector<Case> cases = {
      {"ollama", 500, R"({"error":"CUDA error: no kernel image is available for execution on the device"})",
       E::cuda_unsupported_arch, true, true},
      {"ollama", 500, R"({"error":"llama-server process has terminated: cudaMalloc failed: out of memory"})", E::oom,
       false, true},
      {"ollama", 500, R"j({"error":"model requires more system memory (8.1 GiB) than is available (3.2 GiB)"})j",
       E::oom, false, true},
      {"comfyui", 0,
       R"({"type":"execution_error","data":{"exception_type":"torch.OutOfMemoryError","exception_message":"Allocation on device"}})",
       E::oom, false, true},
      {"llamacpp", 0, "kIOGPUCommandBufferCallbackErrorOutOfMemory", E::oom, false, true},
      {"comfyui", 400, kNotInList, E::missing_checkpoint, true, true},
      {"comfyui", 400,
       R"({"error":{"type":"missing_node_type","message":"Node 'X' not found","details":"","extra_info":{"class_type":"FancySampler"}}})",
       E::missing_node, true, true},
      {"comfyui", 400,
       R"({"error":{"type":"invalid_prompt","message":"Cannot execute because node FancySampler does not exist.","details":""}})",
       E::missing_node, true, true},
      {"ollama", 404, R"({"error":"model 'llama9' not found"})", E::missing_model, true, true},
      {"ollama", 404, R"({"error":"model \"llama9\" not found, try pulling it first"})", E::missing_model, true, true},
      {"openai", 404,
       R"({"error":{"message":"The model `gpt-9` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}})",
       E::missing_model, true, true},
      {"llamacpp", 400,
       R"({"error":{"code":400,"message":"request (13392 tokens) exceeds the available context size (8192 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":13392,"n_ctx":8192}})",
       E::context_overflow, true, true},
      {"openai", 400,
       R"({"error":{"message":"This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens.","code":"context_length_exceeded"}})",
       E::context_overflow, true, true},
      {"ollama", 500, R"({"error":"CUDA driver version is insufficient for CUDA runtime version"})", E::driver_too_old,
       true, true},
      {"llamacpp", 503, R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"}})", E::loading,
       false, true},
      {"llamacpp", 503, R"({"error":{"code":503,"message":"no slot available","type":"unavailable_error"}})", E::busy,
       false, true},
      {"ollama", 503, R"({"error":"server busy, please try again.  maximum pending requests exceeded"})", E::busy,
       false, true},
      {"openai", 429, R"({"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}})",
       E::rate_limited, false, true},
      {"openai", 429, R"({"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}})",
       E::rate_limited, true, false},
      {"replicate", 429, R"({"detail":"Request was throttled."})", E::rate_limited, false, false},
      {"replicate", 401,
       R"({"title":"Unauthenticated","detail":"You did not pass a valid authentication token","status":401})", E::auth,
       true, true},
      {"llamacpp", 401, R"({"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}})", E::auth,
       true, true},
      {"runpod", 200,
       R"({"id":"x","status":"FAILED","error":"{\"error_type\": \"<class 'RuntimeError'>\", \"error_message\": \"CUDA out of memory. Tried to allocate 2.50 GiB\"}"})",
       E::oom, false, true},
      {"ollama", 400, R"({"error":"\"x\" does not support chat"})", E::unknown, true, false},
      {"ollama", 500, R"({"error":"something else"})", E::unknown, false, true},
      {"ollama", 0, R"({"error":"unexpected EOF"})", E::unknown, false, true},
      {"llamacpp", 0, "failed to allocate buffer\nretrying without pipeline parallelism", E::unknown, false, true},
      {"openai", 404, "<html>404 page not found</html>", E::unknown, true, true},
      {"", 0, "", E::unknown, false, true},
  };
  for (const Case& c : cases) {
    const Classified got = classify(c.kind, c.status, c.text);
    EXPECT_EQ(got.name, name(c.error)) << c.text;
    EXPECT_EQ(got.error, c.error);
    EXPECT_EQ(got.permanent, c.permanent) << c.text;
    EXPECT_EQ(got.retry_elsewhere, c.elsewhere) << c.text;
    EXPECT_FALSE(got.advice.empty());
    EXPECT_EQ(got.advice.back(), '.');
  }
}

TEST(Classify, SaysTheNumbersAndNamesOfTheText) {
  EXPECT_NE(classify("comfyui", 400, kNotInList).advice.find("'x.safetensors'"), std::string::npos);
  EXPECT_NE(classify("ollama", 404, R"({"error":"model 'llama9' not found"})").advice.find("'llama9'"),
            std::string::npos);
  const auto overflow = classify(
      "llamacpp", 400, "request (13392 tokens) exceeds the available context size (8192 tokens), try increasing it");
  EXPECT_NE(overflow.advice.find("the request has 13392 tokens, the context 8192"), std::string::npos);
  const auto oom = classify("comfyui", 0, "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has");
  EXPECT_NE(oom.advice.find("It asked for 2.50 GiB."), std::string::npos) << oom.advice;
  EXPECT_NE(oom.sentence().find("Tried to allocate"), std::string::npos);
}

TEST(ErrorText, ReadsEachShape) {
  EXPECT_EQ(error_text(R"({"error":"plain"})"), "plain");
  EXPECT_EQ(error_text(R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"}})"),
            "Loading model");
  EXPECT_EQ(read_error(R"({"error":{"code":503,"message":"m"}})").code, "503");
  EXPECT_EQ(read_error(R"({"error":{"code":null,"message":"m","type":"t"}})").code, "");
  EXPECT_EQ(error_text(kNotInList), "ckpt_name: 'x.safetensors' not in ['a.safetensors']");
  EXPECT_EQ(read_error(kNotInList).node, "CheckpointLoaderSimple");
  EXPECT_EQ(error_text(R"({"title":"T","detail":"D","status":422})"), "D");
  EXPECT_EQ(error_text(R"({"detail":[{"loc":["body"],"msg":"field required"}]})"), "field required");
  EXPECT_EQ(error_text(R"({"status":"failed","error":"boom","logs":""})"), "boom");
  EXPECT_EQ(error_text(R"(error: {"code":500,"message":"old form","type":"server_error"})"), "old form");
  EXPECT_EQ(error_text(R"(data: {"error":{"message":"new form"}})"), "new form");
  EXPECT_EQ(error_text(R"({"output":{"error":"from a handler"},"status":"FAILED"})"), "from a handler");
  EXPECT_EQ(error_text("  upstream timed out \n"), "upstream timed out");
  EXPECT_EQ(error_text("bad \xff byte"), "bad ? byte");
  EXPECT_EQ(error_text(std::string(5000, 'x')).size(), 2000u);
  EXPECT_EQ(error_text(""), "");
}

RC_GTEST_PROP(ErrorText, IsTextWhateverComes, (const std::string& bytes)) {
  for (const std::string& text : {bytes, R"j({"error":")j" + bytes + R"("})", R"({"error":{"message":)" + bytes}) {
    const ErrorBody body = read_error(text);
    RC_ASSERT(is_utf8(body.message));
    RC_ASSERT(body.message.size() <= 4100u);
    const Classified c = classify("ollama", 500, text);
    RC_ASSERT(c.name == name(c.error) && !c.advice.empty());
  }
}

}  // namespace
}  // namespace grange::ai
