// What tasks may do and may not: pause, what they leave running, memory, inputs, gangs. With real processes.
#include <signal.h>
#include <sys/wait.h>

#include <thread>

#include "worker/guardian.hpp"
#include "worker/leftovers.hpp"
#include "worker/process.hpp"
#include "worker/process_testing.hpp"
#include "worker/resources.hpp"
#include "worker/scripted_server.hpp"
#include "worker/task_env.hpp"

namespace grange::worker {
namespace {

char state_of(pid_t pid) {
  const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t at = stat.rfind(')');
  return at == std::string::npos ? '-' : stat[at + 2];
}
void order_pause(ScriptedServer& s, std::uint32_t job, std::uint32_t index, pb::PauseHow how) {
  pb::WorkerOrders orders;
  pb::PauseOrder& one = *orders.add_pause();
  one.set_task(TaskId::of(JobNo{job}, index).packed);
  one.set_attempt(1);
  one.set_how(how);
  s.send(orders);
}
void order_cancel(ScriptedServer& s, std::uint32_t job, std::uint32_t index) {
  pb::WorkerOrders orders;
  orders.add_cancel()->set_task(TaskId::of(JobNo{job}, index).packed);
  orders.mutable_cancel(0)->set_attempt(1);
  s.send(orders);
}
// The number that a task printed on a line of its own.
pid_t told_pid(const std::string& logs) {
  return std::atoi(logs.c_str());
}

// It leaves its group, its session and its environment behind, and tells its number.
const char* const kAway = "env -i /usr/bin/setsid sh -c 'echo $$; exec sleep 300' & ";

TEST(Leftovers, WhatATaskLeavesAnywhereEndsWithIt) {
  for (const std::string end : {"normal", "cancel", "limit", "stop"}) {
    ScriptedServer s;
    ASSERT_TRUE(s.online());
    pb::WorkerOrders orders;
    pb::SpecOrder& spec = shell_job(orders, 1, kAway + std::string(end == "normal" ? "sleep 0.3" : "wait; sleep 300"));
    if (end == "limit") spec.mutable_spec()->set_time_limit_ms(500);
    assign(orders, 1, 0);
    s.send(orders);
    ASSERT_TRUE(s.until([&] { return told_pid(s.logs) > 0; })) << end;
    const pid_t away = told_pid(s.logs);
    if (end == "cancel") order_cancel(s, 1, 0);
    if (end == "stop") {
      bool done = false;
      s.worker->stop([&] { done = true; });
      ASSERT_TRUE(s.until([&] { return done; }));
    } else {
      ASSERT_TRUE(s.until([&] { return s.results.size() == 1; })) << end;
      EXPECT_EQ(s.results[0].ok(), end == "normal");
      EXPECT_NE(s.system_logs.find("Ended what the task had left running"), std::string::npos) << end << s.system_logs;
    }
    EXPECT_TRUE(gone_soon(away)) << end;
  }
}

TEST(Leftovers, OfAPythonTaskToo) {
  WorkerOptions options;
  if (!with_python(options)) GTEST_SKIP() << "set GRANGE_TEST_PYTHON to an interpreter that has cloudpickle and grange";
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  const auto code = [](const std::string& then) {
    return "[\"import subprocess, time\\np = subprocess.Popen(['sleep', '300'], start_new_session=True)\\n"
           "print(p.pid, flush=True)\\n" +
           then + "\"]";
  };
  pb::WorkerOrders orders;
  python_job(orders, 1, s.blob("cbuiltins\nexec\n."));
  python_job(orders, 2, s.blob("cbuiltins\nexec\n.")).set_time_limit_ms(700);
  assign(orders, 1, 0, code("time.sleep(0.3)"));
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_TRUE(s.results[0].ok()) << s.results[0].message();
  EXPECT_TRUE(gone_soon(told_pid(s.logs)));
  EXPECT_EQ(s.system_logs, "Ended what the task had left running: sleep.\n");
  for (const std::uint32_t job : {1u, 2u}) {
    s.logs.clear();
    pb::WorkerOrders more;
    assign(more, job, 5, code("time.sleep(300)"));
    s.send(more);
    ASSERT_TRUE(s.until([&] { return told_pid(s.logs) > 0; }));
    const pid_t away = told_pid(s.logs);
    const std::size_t before = s.results.size();
    if (job == 1) order_cancel(s, 1, 5);
    ASSERT_TRUE(s.until([&] { return s.results.size() == before + 1; }));
    EXPECT_EQ(s.results.back().failure(), job == 1 ? pb::FAILURE_CANCELLED : pb::FAILURE_TIME_LIMIT);
    EXPECT_TRUE(gone_soon(away));
  }
}

// A worker in small is killed; its task has left group and session behind.
TEST(Leftovers, TheGuardianFindsThoseWhoWentAway) {
  auto pipe = make_pipe();
  ASSERT_TRUE(pipe);
  const pid_t worker = ::fork();
  if (worker == 0) {
    const std::string mark = std::string(kMark) + "=" + random_id(8);
    auto guardian = Guardian::start(mark);
    if (!guardian) ::_exit(1);
    ChildSpec spec;
    spec.program = "/bin/sh";
    spec.argv = {"sh", "-c", "setsid sh -c 'echo $$; exec sleep 300' & wait"};
    spec.env = {mark, "PATH=" + std::string(kPath)};
    spec.stdout_fd = pipe->write.get();
    spec.guardian_fd = guardian->fd();
    if (!spawn(spec)) ::_exit(1);
    for (;;) ::pause();
  }
  pipe->write.reset();
  char text[64] = {};
  ASSERT_GT(::read(pipe->read.get(), text, sizeof text - 1), 0);
  const pid_t away = std::atoi(text);
  ASSERT_TRUE(alive(away));
  ::kill(worker, SIGKILL);
  ::waitpid(worker, nullptr, 0);
  EXPECT_TRUE(gone_soon(away));
}

TEST(Pause, ProcessesStandStillWhereverTheyAre) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, kAway + std::string("while :; do sleep 0.01; done"));
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return told_pid(s.logs) > 0; }));
  const pid_t away = told_pid(s.logs);
  order_pause(s, 1, 0, pb::PAUSE_FREEZE);
  ASSERT_TRUE(s.until([&] { return s.paused.size() == 1; }));
  ASSERT_TRUE(s.until([&] { return state_of(away) == 'T'; }));
  EXPECT_NE(s.worker->status_json().find("\"frozen\":true"), std::string::npos);
  order_pause(s, 1, 0, pb::PAUSE_RESUME);
  ASSERT_TRUE(s.until([&] { return s.resumed.size() == 1 && state_of(away) == 'S'; }));
  order_pause(s, 1, 0, pb::PAUSE_FREEZE);
  ASSERT_TRUE(s.until([&] { return s.paused.size() == 2; }));
  order_cancel(s, 1, 0);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_EQ(s.results[0].failure(), pb::FAILURE_CANCELLED);
  EXPECT_TRUE(gone_soon(away));
}

TEST(Pause, RequeueLetsATaskTidyUp) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "trap 'echo tidied; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.logs.find("ready") != std::string::npos; }));
  order_pause(s, 1, 0, pb::PAUSE_REQUEUE);
  ASSERT_TRUE(s.until([&] { return s.preempted.size() == 1; }));
  EXPECT_NE(s.logs.find("tidied"), std::string::npos);
  EXPECT_TRUE(s.results.empty());
  EXPECT_EQ(s.worker->status().held, 0u);
}

TEST(Pause, APythonTaskLeavesItsCheckpoint) {
  WorkerOptions options;
  if (!with_python(options)) GTEST_SKIP() << "set GRANGE_TEST_PYTHON to an interpreter that has cloudpickle and grange";
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  python_job(orders, 1, s.blob("cbuiltins\nexec\n."));
  assign(orders, 1, 0,
         "[\"import grange, time\\ntry:\\n  print('ready', flush=True)\\n  time.sleep(300)\\n"
         "except KeyboardInterrupt:\\n  grange.checkpoint(42)\\n  raise\"]");
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.logs.find("ready") != std::string::npos; }));
  order_pause(s, 1, 0, pb::PAUSE_FREEZE);
  ASSERT_TRUE(s.until([&] { return s.paused.size() == 1; }));
  order_pause(s, 1, 0, pb::PAUSE_REQUEUE);
  ASSERT_TRUE(s.until([&] { return s.preempted.size() == 1; }));
  EXPECT_EQ(s.checkpoints.size(), 1u);
  EXPECT_TRUE(s.results.empty());
}

// A SIGINT that comes just before a call that blocks is not seen by Python until something ends that call.
TEST(Pause, APythonTaskThatDoesNotHearIsWokenAgain) {
  WorkerOptions options;
  if (!with_python(options)) GTEST_SKIP() << "set GRANGE_TEST_PYTHON to an interpreter that has cloudpickle and grange";
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  python_job(orders, 1, s.blob("cbuiltins\nexec\n."));
  assign(orders, 1, 0,
         "[\"import signal, time\\nwoken = []\\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\\n"
         "signal.signal(signal.SIGURG, lambda *_, seen=woken: seen.append(1))\\nprint('ready', flush=True)\\n"
         "while not woken: time.sleep(0.01)\\nprint('woken', flush=True)\"]");
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.logs.find("ready") != std::string::npos; }));
  order_pause(s, 1, 0, pb::PAUSE_REQUEUE);
  EXPECT_TRUE(s.until([&] { return s.logs.find("woken") != std::string::npos; }));
}

TEST(Memory, MoreThanAskedForEndsTheTask) {
  EXPECT_FALSE(is_over(100, 0));
  EXPECT_FALSE(is_over(105, 100));
  EXPECT_TRUE(is_over(106, 100));
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  // dd holds one block of this size in memory.
  shell_job(orders, 1, "dd if=/dev/zero of=/dev/null bs=300M count=1000000");
  orders.mutable_specs(0)->mutable_spec()->mutable_requirements()->set_memory_bytes(64 * MiB);
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_EQ(s.results[0].failure(), pb::FAILURE_OUT_OF_MEMORY);
  EXPECT_NE(s.results[0].message().find("more than the 64 MiB"), std::string::npos) << s.results[0].message();
  EXPECT_EQ(s.results[0].stage(), pb::STAGE_EXECUTE);
}

TEST(Memory, OfAPythonTaskToo) {
  WorkerOptions options;
  if (!with_python(options)) GTEST_SKIP() << "set GRANGE_TEST_PYTHON to an interpreter that has cloudpickle and grange";
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  python_job(orders, 1, s.blob("cbuiltins\nexec\n.")).mutable_requirements()->set_memory_bytes(64 * MiB);
  assign(orders, 1, 0, "[\"import time; x = bytes(range(256)) * (300 << 12); time.sleep(300)\"]");
  assign(orders, 1, 1, "[\"x = 1\"]");
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 2; }));
  for (const auto& r : s.results) {
    EXPECT_EQ(r.ok(), TaskId{r.task()}.index() == 1) << r.message();
    if (r.ok()) continue;
    EXPECT_EQ(r.failure(), pb::FAILURE_OUT_OF_MEMORY);
    EXPECT_NE(r.message().find("more than the 64 MiB"), std::string::npos) << r.message();
  }
}

TEST(Inputs, ACommandFindsThemAsFiles) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "cd \"$GRANGE_INPUTS\" && ls && cat 0 1 2 && stat -c %a 0");
  pb::Assignment& a = assign(orders, 1, 0);
  a.add_inputs()->set_value("one\n");
  a.add_inputs()->set_value_sha256(s.blob("two, by blob\n"));
  a.add_inputs();
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_EQ(s.results[0].value(), "0\n1\n2\none\ntwo, by blob\n400\n") << s.results[0].message();
  EXPECT_TRUE(s.until([&] { return std::filesystem::is_empty(s.dir + "/tasks"); }));
}

TEST(Inputs, APythonFunctionGetsThem) {
  WorkerOptions options;
  if (!with_python(options)) GTEST_SKIP() << "set GRANGE_TEST_PYTHON to an interpreter that has cloudpickle and grange";
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  python_job(orders, 1, s.blob("cbuiltins\nmax\n."));
  pb::Assignment& a = assign(orders, 1, 0, "[3]");
  pb::Input& first = *a.add_inputs();
  first.set_encoding(pb::ENCODING_PICKLE);
  first.set_value("I7\n.");
  pb::Input& second = *a.add_inputs();
  second.set_encoding(pb::ENCODING_JSON);
  second.set_value_sha256(s.blob("9"));
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_TRUE(s.results[0].ok()) << s.results[0].message();
  EXPECT_EQ(s.results[0].value(), "9");
}

TEST(Gang, AMemberKnowsItsPlace) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "echo $GRANGE_NODES $GRANGE_NODE_RANK $GRANGE_NODE_HOSTS $GRANGE_GANG_ID");
  pb::Assignment& a = assign(orders, 1, 4);
  a.add_gang("left");
  a.add_gang("right");
  a.set_rank(1);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_EQ(s.results[0].value(), "2 1 left,right 1-4-1\n");
}

TEST(Gpus, ATaskSeesItsOwnOnly) {
  worker::Run run;
  EXPECT_TRUE(place_env(run).empty());
  run.hides_gpus = true;
  EXPECT_EQ(place_env(run)[1], "CUDA_VISIBLE_DEVICES=");
  run.gpus = {0, 2};
  EXPECT_EQ(place_env(run)[1], "CUDA_VISIBLE_DEVICES=0,2");
  EXPECT_EQ(place_env(run)[2], "GRANGE_GPUS=0,2");
}

TEST(Manifest, PoolModelsAndLife) {
  WorkerOptions options;
  options.pool = "fast";
  options.models = {"llama3:8b", "other"};
  options.life = std::chrono::hours(2);
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  const pb::Manifest& m = s.hellos[0].worker().manifest();
  EXPECT_EQ(m.pool(), "fast");
  ASSERT_EQ(m.models_size(), 2);
  EXPECT_GT(m.life_ms(), 0u);
  EXPECT_LE(m.life_ms(), 7'200'000u);
}

TEST(Manifest, AWorkerWhoseTimeIsOverLeaves) {
  WorkerOptions options;
  options.life = Millis(200);
  ScriptedServer s(options);
  ASSERT_TRUE(s.until([&] { return s.goodbye == "drained"; }));
}

TEST(Worker, TheMarkIsTheWorkersOwn) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  (*shell_job(orders, 1, "true").mutable_spec()->mutable_command()->mutable_env())[std::string(kMark)] = "x";
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_EQ(s.results[0].failure(), pb::FAILURE_REFUSED);
}

}  // namespace
}  // namespace grange::worker
