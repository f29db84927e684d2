// Graphs, and why work waits.
#include <boost/json/serialize.hpp>

#include "core/farm.hpp"
#include "server/api/graph.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"

namespace grange::server {

void Rest::post_graph(RestCallPtr call) {
  const auto header = call->request().headers.find("idempotency-key");
  const std::string key = header == call->request().headers.end() ? "" : header->second;
  if (!key.empty() && (!valid_name(key) || key.size() > limits::kNameBytes / 2))
    return call->fail({ErrorClass::invalid_argument, "Idempotency-Key may have at most 128 bytes, all printable."});
  using Files = std::shared_ptr<std::vector<JobFile>>;
  // A graph may be large: it is read on a thread that may take its time.
  s_.files->read<Files>(
      [call](store::Reader&) -> Result<Files> {
        auto files = read_graph_file(call->request().body);
        if (!files) return std::move(files).error();
        return std::make_shared<std::vector<JobFile>>(std::move(*files));
      },
      [this, call, key](Result<Files> files) {
        if (!files) return call->fail(files.error());
        std::vector<SubmitInput> jobs;
        jobs.reserve((*files)->size());
        for (JobFile& file : **files) {
          if (!key.empty() && file.spec.key().empty()) file.spec.set_key(key + "/" + std::to_string(jobs.size()));
          jobs.push_back(to_input(std::move(file)));
        }
        operations_.submit_graph(call->who, std::move(jobs), [this, call](Result<std::vector<SubmitAnswer>> answers) {
          if (!answers) return call->fail(answers.error());
          std::vector<JobNo> numbers;
          bool existed = true;
          for (const SubmitAnswer& one : *answers) {
            numbers.push_back(one.meta->job);
            existed = existed && one.existed;
          }
          operations_.status_of(numbers, [call, existed, answers = *answers](Result<std::vector<JobFigures>> figures) {
            if (!figures) return call->fail(figures.error());
            json::array out;
            for (std::size_t i = 0; i < figures->size(); ++i) {
              json::object job = job_json((*figures)[i]);
              job["existed"] = answers[i].existed;
              out.push_back(std::move(job));
            }
            call->answer(existed ? 200 : 201, json::object{{"jobs", std::move(out)}});
          });
        });
      });
}

void Rest::post_plan(RestCallPtr call) {
  using File = std::shared_ptr<JobFile>;
  s_.files->read<File>(
      [call](store::Reader&) -> Result<File> {
        auto file = read_job_file(call->request().body);
        if (!file) return std::move(file).error();
        return std::make_shared<JobFile>(std::move(*file));
      },
      [this, call](Result<File> file) {
        if (!file) return call->fail(file.error());
        operations_.plan(call->who, to_input(std::move(**file)), [this, call](Result<core::Explanation> plan) {
          if (!plan) return call->fail(plan.error());
          answer_explained(call, *plan, "");
        });
      });
}

void Rest::explain(const RestCallPtr& call, const std::string& job, std::optional<std::uint32_t> index) {
  operations_.explain(call->who, job, index, [this, call](Result<std::pair<JobMetaPtr, core::Explanation>> found) {
    if (!found) return call->fail(found.error());
    answer_explained(call, found->second, found->first->id);
  });
}

// With the names that people gave their workers: the store has them.
void Rest::answer_explained(const RestCallPtr& call, const core::Explanation& explained, const std::string& id) {
  s_.readers->read<WorkerWordsMap>(
      [](store::Reader& reader) -> Result<WorkerWordsMap> {
        auto rows = reader.workers();
        if (!rows) return std::move(rows).error();
        return words_of(*rows);
      },
      [this, call, explained, id](Result<WorkerWordsMap> words) {
        if (!words) return call->fail(words.error());
        call->answer(200, explanation_json(explained, id, *s_.workers, *words));
      });
}

void Rest::explain_job(RestCallPtr call) {
  explain(call, call->path["id"], std::nullopt);
}

void Rest::explain_task(RestCallPtr call) {
  std::uint32_t index = 0;
  if (call->index(index)) explain(call, call->path["id"], index);
}

}  // namespace grange::server
