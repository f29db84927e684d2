#include "ai/workflow.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "ai/mock.hpp"

namespace grange::ai {
namespace {

namespace json = boost::json;

ImageParams params(std::string_view text, const json::value& argument = nullptr) {
  auto read = read_image_params(text, argument);
  EXPECT_TRUE(read.ok()) << (read.ok() ? "" : read.error().message);
  return read.ok() ? *read : ImageParams{};
}

TEST(Workflow, MakesTheGraphOfComfysExample) {
  const json::object got = txt2img(params(
      R"({"checkpoint":"a.safetensors","prompt":"a barn","negative":"rain","seed":5,"steps":8,"cfg":7.5,"width":640,"height":384,"batch":2})"));
  EXPECT_EQ(json::value(got), json::parse(R"({
"3":{"class_type":"KSampler","inputs":{"cfg":7.5,"denoise":1.0,"latent_image":["5",0],"model":["4",0],"negative":["7",0],"positive":["6",0],"sampler_name":"euler","scheduler":"normal","seed":5,"steps":8}},
"4":{"class_type":"CheckpointLoaderSimple","inputs":{"ckpt_name":"a.safetensors"}},
"5":{"class_type":"EmptyLatentImage","inputs":{"batch_size":2,"height":384,"width":640}},
"6":{"class_type":"CLIPTextEncode","inputs":{"clip":["4",1],"text":"a barn"}},
"7":{"class_type":"CLIPTextEncode","inputs":{"clip":["4",1],"text":"rain"}},
"8":{"class_type":"VAEDecode","inputs":{"samples":["3",0],"vae":["4",2]}},
"9":{"class_type":"SaveImage","inputs":{"filename_prefix":"grange","images":["8",0]}}})"))
      << json::serialize(got);
  EXPECT_TRUE(read_workflow(json::serialize(got), nullptr).ok());
  EXPECT_EQ(output_nodes(got), std::vector<std::string>{"9"});
  const auto used = models_used(got);
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].name, "a.safetensors");
  EXPECT_EQ(used[0].folder, "checkpoints");
}

TEST(Workflow, ArgumentsAreThePromptOrOverride) {
  EXPECT_EQ(params(R"({"checkpoint":"c","prompt":"a {} barn"})", "red").prompt, "a red barn");
  EXPECT_EQ(params(R"({"checkpoint":"c"})", "red").prompt, "red");
  const ImageParams got =
      params(R"({"ckpt_name":"c","prompt":"p","cfg_scale":3})", json::object{{"steps", 4}, {"seed", -1}});
  EXPECT_EQ(got.steps, 4u);
  EXPECT_DOUBLE_EQ(got.cfg, 3);
  EXPECT_FALSE(got.seed_given);
  EXPECT_TRUE(params(R"({"checkpoint":"c","prompt":"p","seed":18446744073709551615})").seed_given);
}

TEST(Workflow, LimitsAreSaid) {
  const auto refused = [](std::string_view more) {
    const auto read = read_image_params(R"({"checkpoint":"c","prompt":"p",)" + std::string(more) + "}", nullptr);
    return read.ok() ? std::string() : read.error().message;
  };
  EXPECT_NE(refused(R"("steps":0)").find("'steps' of a picture must be a whole number from 1 to 1000"),
            std::string::npos);
  EXPECT_NE(refused(R"("width":100)").find("multiples of 8"), std::string::npos);
  EXPECT_NE(refused(R"("width":99999)").find("16384"), std::string::npos);
  EXPECT_NE(refused(R"("width":16384,"height":16384)").find("64 megapixels"), std::string::npos);
  EXPECT_NE(refused(R"("cfg":"high")").find("'cfg'"), std::string::npos);
  EXPECT_NE(refused(R"("colour":1)").find("no parameter 'colour'"), std::string::npos);
  EXPECT_NE(refused(R"("prompt":5)").find("must be a text"), std::string::npos);
  EXPECT_FALSE(read_image_params(R"({"prompt":"p"})", nullptr).ok());
  EXPECT_FALSE(read_image_params(R"({"checkpoint":"c"})", nullptr).ok());
}

TEST(Workflow, AnyGraphIsCheckedAndFilled) {
  const auto good = read_workflow(
      R"({"prompt":{"1":{"class_type":"LoraLoader","inputs":{"lora_name":"{}.safetensors","list":["{}",1,"x"]}},
"2":{"class_type":"Sampler","inputs":{"noise_seed":7,"seed":["1",0],"model":["1",0]}}}})",
      "farm");
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_EQ(models_used(*good).at(0).name, "farm.safetensors");
  EXPECT_EQ(models_used(*good).at(0).folder, "loras");
  EXPECT_EQ(good->at("1").at("inputs").at("list").at(0).as_string(), "farm");
  EXPECT_EQ(output_nodes(*good), std::vector<std::string>{"2"});
  json::object graph = *good;
  EXPECT_EQ(vary_seeds(graph, 3), 1u) << "a seed that another node gives is left alone";
  EXPECT_EQ(graph.at("2").at("inputs").at("noise_seed").as_uint64(), 10u);

  const auto refused = [](std::string_view text) {
    const auto read = read_workflow(text, nullptr);
    return read.ok() ? std::string() : read.error().message;
  };
  EXPECT_NE(refused(R"({"nodes":[],"links":[]})").find("API Format"), std::string::npos);
  EXPECT_NE(refused(R"({"1":{"class_type":"A","inputs":{"x":["9",0]}}})").find("node '9', which is not there"),
            std::string::npos);
  EXPECT_NE(refused(R"({"1":{"inputs":{}}})").find("class_type"), std::string::npos);
  EXPECT_NE(refused("{}").find("no nodes"), std::string::npos);
  EXPECT_NE(refused("[").find("JSON"), std::string::npos);
}

RC_GTEST_PROP(Workflow, AnyText, (const std::string& text)) {
  (void)read_workflow(text, json::value(text));
  (void)read_image_params(text, json::value(text));
  const auto graph = read_workflow(R"({"1":{"class_type":"A","inputs":{"x":"{}"}}})", json::value(text));
  RC_ASSERT(graph.ok());
  RC_ASSERT(std::string(graph->at("1").at("inputs").at("x").as_string()) == text);
}

TEST(Mock, TheSamePromptGetsTheSameAnswer) {
  const MockAnswer a = mock_answer("Hi", 20);
  EXPECT_EQ(a.tokens, mock_answer("Hi", 20).tokens);
  EXPECT_NE(a.tokens, mock_answer("Ho", 20).tokens);
  EXPECT_NE(a.tokens, mock_answer("Hi", 20, 1).tokens);
  EXPECT_EQ(a.tokens.size(), 20u);
  std::string all;
  for (const std::string& token : a.tokens) all += token;
  EXPECT_EQ(a.text, all);
  EXPECT_EQ(a.text.substr(0, 6), "[mock]") << "nobody takes it for an answer";
  EXPECT_EQ(mock_answer("Hi", 1 << 30).tokens.size(), kMockTokens);
  EXPECT_EQ(name(MockReason::missing_model), "missing_model");
  double squares = 0;
  for (const double v : mock_embedding("Hi")) squares += v * v;
  EXPECT_NEAR(squares, 1, 1e-12);
}

}  // namespace
}  // namespace grange::ai
