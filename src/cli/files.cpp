// Files of jobs, to the server and back.
#include <fmt/format.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>

#include "cli/exit.hpp"
#include "cli/job_file.hpp"
#include "cli/jobs.hpp"

namespace grange::cli {

void upload_files(Rest& rest, json::object& job, const std::vector<FileIn>& files) {
  if (files.empty()) return;
  json::array out;
  for (const json::value& entry : job["files_in"].get_array()) {
    if (entry.is_object() && entry.get_object().contains("sha256")) out.push_back(entry);
  }
  for (const FileIn& file : files) {
    const std::string sha256 = take(file_sha256(file.source));
    struct stat status {};
    if (stat(file.source.c_str(), &status) != 0) throw Exit{kUsage, fmt::format("The file {} is gone.", file.source)};
    rest.upload(sha256, file.source);
    out.push_back(json::object{{"path", file.path},
                               {"sha256", sha256},
                               {"bytes", static_cast<std::uint64_t>(status.st_size)},
                               {"mode", static_cast<std::uint64_t>(status.st_mode & 0777)}});
  }
  job["files_in"] = std::move(out);
}

void make_folder(const std::filesystem::path& folder) {
  if (folder.empty()) return;
  std::error_code ec;
  std::filesystem::create_directories(folder, ec);
  if (ec) throw Exit{kFailed, fmt::format("The folder {} cannot be created: {}.", folder.string(), ec.message())};
}

std::size_t download_files(Rest& rest, const json::value& result, const std::filesystem::path& folder) {
  std::size_t stored = 0;
  const json::value* files = field(result, "files");
  if (files == nullptr || !files->is_array()) return 0;
  for (const json::value& file : files->get_array()) {
    const std::string path = str(file, "path");
    if (!safe_path(path))
      throw Exit{kFailed,
                 fmt::format("The server names a file \"{}\" that leads out of the folder; it was not stored.", path)};
    const std::filesystem::path target = folder / path;
    make_folder(target.parent_path());
    rest.download(str(file, "sha256"), target.string());
    ++stored;
  }
  return stored;
}

}  // namespace grange::cli
