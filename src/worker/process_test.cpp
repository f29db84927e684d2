#include "worker/process.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "worker/process_testing.hpp"
#include "worker/resources.hpp"
#include "worker/task_folder.hpp"

namespace grange::worker {
namespace {

struct Outcome {
  std::string out, err;
  ExitStatus status;
  bool ended = false;
};

// Runs a /bin/sh script on a loop of its own until it ends (at most 10 s).
Outcome shell(const std::string& script, ProcessSpec spec = {}, std::function<void(Process&)> once_started = {}) {
  net::Loop loop;
  Outcome got;
  spec.program = "/bin/sh";
  spec.argv = {"sh", "-c", script};
  if (spec.env.empty()) spec.env = {"PATH=" + std::string(kPath)};
  auto process = Process::start(loop, nullptr, spec,
                                {[&](Output from, std::string_view data) {
                                   (from == Output::out ? got.out : got.err) += data;
                                   return true;
                                 },
                                 [&](const ExitStatus& status) {
                                   got.status = status;
                                   got.ended = true;
                                   loop.stop();
                                 }});
  if (!process) {
    ADD_FAILURE() << process.error().message;
    return got;
  }
  if (once_started) once_started(**process);
  const auto limit = loop.after(Millis(10'000), [&] { loop.stop(); });
  loop.run();
  EXPECT_TRUE(got.ended);
  return got;
}

TEST(Process, OutputAndExitCode) {
  const Outcome got = shell("echo one; echo two >&2; exit 3");
  EXPECT_EQ(got.out, "one\n");
  EXPECT_EQ(got.err, "two\n");
  EXPECT_EQ(got.status.code, 3);
}

TEST(Process, AllOfALargeOutputComes) {
  const Outcome got = shell("head -c 3000000 /dev/zero");
  EXPECT_EQ(got.out.size(), 3'000'000u);
}

TEST(Process, Stdin) {
  ProcessSpec spec;
  spec.feeds_stdin = true;
  spec.stdin_bytes = std::string(300'000, 'x');
  EXPECT_EQ(shell("wc -c", spec).out, "300000\n");
  EXPECT_EQ(shell("exec <&-; exit 0", spec).status.code, 0) << "one that does not read is no trouble";
  EXPECT_EQ(shell("wc -c").out, "0\n");
}

TEST(Process, NothingOfOursLeaksIn) {
  ::setenv("GRANGE_TOKEN", "secret", 1);
  const Fd open_here(::dup(1));
  const Outcome got =
      shell("env; ls /proc/self/fd | wc -l; grep -E 'NoNewPrivs|SigBlk|SigIgn' /proc/self/status; ulimit -c");
  ::unsetenv("GRANGE_TOKEN");
  EXPECT_EQ(got.out.find("GRANGE_TOKEN"), std::string::npos);
  EXPECT_NE(got.out.find("\n4\n"), std::string::npos) << got.out;  // 0, 1, 2, and that of ls itself
  EXPECT_NE(got.out.find("NoNewPrivs:\t1"), std::string::npos);
  EXPECT_NE(got.out.find("SigBlk:\t0000000000000000"), std::string::npos);
  EXPECT_NE(got.out.find("SigIgn:\t0000000000000000"), std::string::npos);
  EXPECT_EQ(got.out.substr(got.out.size() - 3), "\n0\n");
}

TEST(Process, TheWholeGroupIsKilled) {
  const Outcome got = shell("sleep 1000 & echo $!; wait", {}, [](Process& p) {
    std::this_thread::sleep_for(Millis(200));
    p.signal(SIGKILL);
  });
  EXPECT_EQ(got.status.signal, SIGKILL);
  const pid_t grandchild = std::atoi(got.out.c_str());
  ASSERT_GT(grandchild, 0);
  EXPECT_TRUE(gone_soon(grandchild));
}

TEST(Process, WhatATaskLeavesBehindEndsWithIt) {
  const Outcome got = shell("sleep 1000 & echo $!; exit 0");
  EXPECT_EQ(got.status.code, 0);
  const pid_t grandchild = std::atoi(got.out.c_str());
  ASSERT_GT(grandchild, 0);
  EXPECT_TRUE(gone_soon(grandchild));
}

TEST(Process, HeldBackOutputComesLater) {
  net::Loop loop;
  std::size_t got = 0;
  bool ended = false;
  std::unique_ptr<Process> process;
  ProcessSpec spec;
  spec.program = "/bin/sh";
  spec.argv = {"sh", "-c", "head -c 200000 /dev/zero"};
  spec.env = {"PATH=" + std::string(kPath)};
  std::vector<std::unique_ptr<net::Timer>> timers;
  auto started = Process::start(loop, nullptr, spec,
                                {[&](Output, std::string_view data) {
                                   got += data.size();
                                   timers.push_back(loop.after(Millis(5), [&] { process->resume(); }));
                                   return false;
                                 },
                                 [&](const ExitStatus&) {
                                   ended = true;
                                   loop.stop();
                                 }});
  ASSERT_TRUE(started);
  process = std::move(*started);
  const auto limit = loop.after(Millis(10'000), [&] { loop.stop(); });
  loop.run();
  EXPECT_TRUE(ended);
  EXPECT_EQ(got, 200'000u);
}

TEST(Spawn, WhatIsNotThereSaysSo) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer makes a fork of vfork, so the child cannot tell its parent why exec failed.";
#endif
  EXPECT_EQ(find_program("no-such-program", kPath, "").error().cls, ErrorClass::not_found);
  EXPECT_EQ(find_program("/etc/passwd", kPath, "").error().cls, ErrorClass::forbidden);
  ChildSpec spec;
  spec.program = "/nowhere/x";
  spec.argv = {"x"};
  const auto child = spawn(spec);
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().cls, ErrorClass::not_found);
}

// A worker in small: a guardian, one shell, one grandchild that would outlive both. Then kill -9.
TEST(Guardian, NothingOutlivesAKilledWorker) {
  auto pipe = make_pipe();
  ASSERT_TRUE(pipe);
  const pid_t worker = ::fork();
  if (worker == 0) {
    auto guardian = Guardian::start();
    if (!guardian) ::_exit(1);
    ChildSpec spec;
    spec.program = "/bin/sh";
    spec.argv = {"sh", "-c", "sleep 1000 & echo $$ $!; wait"};
    spec.env = {"PATH=" + std::string(kPath)};
    spec.stdout_fd = pipe->write.get();
    spec.guardian_fd = guardian->fd();
    if (!spawn(spec)) ::_exit(1);
    for (;;) ::pause();
  }
  pipe->write.reset();
  char text[64] = {};
  ASSERT_GT(::read(pipe->read.get(), text, sizeof text - 1), 0);
  int child = 0, grandchild = 0;
  ASSERT_EQ(std::sscanf(text, "%d %d", &child, &grandchild), 2);
  EXPECT_TRUE(alive(grandchild));
  ::kill(worker, SIGKILL);
  ::waitpid(worker, nullptr, 0);
  EXPECT_TRUE(gone_soon(child));
  EXPECT_TRUE(gone_soon(grandchild));
}

TEST(TaskFolder, LinksAreNotFollowed) {
  const std::string dir = testing::TempDir() + "grange_folder_" + std::to_string(::getpid());
  ASSERT_TRUE(make_empty_folder(dir));
  std::filesystem::create_symlink("/etc/passwd", dir + "/link");
  std::filesystem::create_symlink("/etc", dir + "/etc");
  EXPECT_FALSE(take_out(dir, "link"));
  EXPECT_FALSE(take_out(dir, "etc/passwd"));
  EXPECT_EQ(take_out(dir, "none.txt").error().message, "files_out: none.txt was not made");
  ASSERT_TRUE(put_in(dir, "sub/a.txt", "/etc/passwd", 0));
  const auto out = take_out(dir, "sub/a.txt");
  ASSERT_TRUE(out);
  EXPECT_EQ(out->sha256.size(), 64u);
  remove_folder(dir);
  EXPECT_FALSE(std::filesystem::exists(dir));
}

TEST(TaskFolder, SubstitutesOnce) {
  EXPECT_EQ(substitute("a{}b{index}{}", "{index}", "7"), "a{index}b7{index}");
  EXPECT_EQ(substitute("{x}", "1", "2"), "{x}");
}

// What /bin/sh prints for a script with this argument.
std::string printed(const std::string& script, const std::string& argument) {
  const std::string text = shell_substitute(script, "7");
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    const std::string set = "GRANGE_ARG=" + argument;
    const char* env[] = {"PATH=/usr/bin:/bin", set.c_str(), nullptr};
    const char* argv[] = {"sh", "-c", text.c_str(), nullptr};
    execve("/bin/sh", const_cast<char**>(argv), const_cast<char**>(env));
    _exit(127);
  }
  close(ends[1]);
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  waitpid(pid, nullptr, 0);
  return out;
}

TEST(ShellSubstitute, AnArgumentIsNeverCode) {
  for (const std::string hostile : {"$(echo gone)",
                                    "`echo gone`",
                                    "'; echo gone; '",
                                    "\"; echo gone; \"",
                                    "a  b",
                                    "*",
                                    "\\",
                                    "\\'",
                                    "'",
                                    "\"",
                                    "-n $HOME",
                                    "\n#",
                                    "{index}",
                                    "{}",
                                    "'$(echo gone)'",
                                    "\"$(echo gone)\"",
                                    "${HOME}",
                                    "!!",
                                    "",
                                    "; echo gone #",
                                    "\xff\xfe"}) {
    for (const char* script :
         {"printf %s {}", "printf %s \"{}\"", "printf %s '{}'", "printf %s \"$(printf %s {}x)\"",
          "printf %s \"`printf %s {}x`\"", "printf %s \"$(printf %s \"{}\"x)\"", "(printf %s {}) # don't {}",
          "# it's {}\nprintf %s {}", "printf %s \\'{} | tail -c +2", "case a in a) printf %s {};; esac"}) {
      std::string out = printed(script, hostile);
      if (std::string(script).find("}x") != std::string::npos ||
          std::string(script).find("\"x)") != std::string::npos) {
        ASSERT_FALSE(out.empty()) << script;
        out.pop_back();
      }
      EXPECT_EQ(out, hostile) << script;
    }
    // Where the place is misjudged, text may come out in quotes, but nothing of it runs.
    const std::string here = printed("cat <<END\n{}\nEND\n", hostile);
    EXPECT_EQ(here, "\"" + hostile + "\"\n");
  }
  EXPECT_EQ(printed("printf %s a'b {} c'd\"e {} f\"g{}h", "1  2"), "ab 1  2 cde 1  2 fg1  2h");
  EXPECT_EQ(printed("echo $(( {} * 2 )) {index} \"{index}\"", "21"), "42 7 7\n");
  EXPECT_EQ(printed("index=x; echo ${index}", ""), "x\n") << "the shell's own";
}

}  // namespace
}  // namespace grange::worker
