#include "tests/trainer/browser.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "tests/trainer/small_run.h"
#include "trainer/report/html.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// In each page, before all of its own: keeps what goes wrong.
constexpr const char* kListener = R"(<script>
window.errors = [];
addEventListener("error", (event) => errors.push(event.message || "a resource failed"), true);
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => errors.push("refused: " + event.violatedDirective));
for (const kind of ["error", "warn"]) console[kind] = (...words) => errors.push(words.join(" "));
</script>)";

// Around the pages: looks at each and uses its charts.
constexpr const char* kVisitor = R"(<pre id="seen"></pre><script>
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const texts = (root, query) => [...root.querySelectorAll(query)].map((e) => e.textContent);
function painted(canvas) {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
  return count;
}
async function look(frame) {
  const w = frame.contentWindow, d = w.document, root = d.documentElement;
  const seen = {innerWidth: w.innerWidth, innerHeight: w.innerHeight, charts: Number(root.dataset.charts || 0),
                background: w.getComputedStyle(d.body).backgroundColor, errors: w.errors};
  const plots = [...d.querySelectorAll(".plot")];
  const mouse = (target, kind, x, y) => target.dispatchEvent(new w.MouseEvent(kind, {bubbles: true, clientX: x, clientY: y, view: w}));
  if (seen.charts > 0) {
    seen.painted = plots.map((plot) => painted(plot.querySelector("canvas")));
    seen.values = texts(d, ".values");
    const amid = (plot, share) => {
      plot.scrollIntoView();
      const top = [...plot.querySelectorAll("canvas")].pop(), box = top.getBoundingClientRect();
      return [top, box.left + 70 + (box.width - 90) * share, box.top + box.height / 2];
    };
    seen.hovered = plots.map((plot, i) => {
      const [top, x, y] = amid(plot, 0.5);
      mouse(top, "mousemove", x, y);
      return texts(d, ".values")[i];
    });
    const across = () => texts(d, ".dygraph-axis-label-x");
    seen.axis = across();
    const [top, x, y] = amid(plots[0], 0.25), [, far] = amid(plots[0], 0.5);
    mouse(top, "mousedown", x, y);
    mouse(d, "mousemove", far, y);
    mouse(d, "mouseup", far, y);
    await pause(50);
    seen.zoomed = across();
    d.getElementById("whole").click();
    d.getElementById("log-y").click();
    seen.logarithmic = texts(d, ".dygraph-axis-label-y");
    for (const id of ["log-x", "log-x", "log-y"]) d.getElementById(id).click();
    for (const choice of ["tokens", "seconds", "step"]) {
      d.getElementById("across").value = choice;
      d.getElementById("across").dispatchEvent(new w.Event("input"));
    }
    await pause(50);
  }
  seen.scrollWidth = root.scrollWidth;
  return seen;
}
addEventListener("load", async () => {
  await pause(100);
  const all = [];
  for (const frame of document.querySelectorAll("iframe")) all.push(await look(frame));
  document.getElementById("seen").textContent = encodeURIComponent(JSON.stringify(all));
});
</script>)";

std::string around(const std::vector<Visit>& visits) {
  std::string html = "<!doctype html><title>tests</title><body style=\"margin:0\">\n";
  for (const Visit& visit : visits) {
    std::string page = visit.page;
    const size_t head = page.find("<head>");
    if (head == std::string::npos) throw std::logic_error("browser: a page without <head>");
    page.insert(head + 6, kListener);
    html += "<iframe style=\"border:0;display:block;width:" + std::to_string(visit.width) +
            "px;height:" + std::to_string(visit.height) + "px\" srcdoc=\"" + html_text(page) +
            "\"></iframe>\n";
  }
  return html + kVisitor;
}

std::string percent_decoded(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    result += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
    i += 2;
  }
  return result;
}

std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const size_t first = text.find(begin);
  if (first == std::string::npos) return "";
  const size_t from = first + begin.size();
  return text.substr(from, text.find(end, from) - from);
}

std::string quoted(const std::string& word) { return "'" + word + "'"; }  // no word has a quote

}  // namespace

std::optional<std::string> find_browser() {
  const char* path = std::getenv("PATH");
  for (const char* name :
       {"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}) {
    std::istringstream folders(path == nullptr ? "" : path);
    for (std::string folder; std::getline(folders, folder, ':');) {
      const fs::path program = fs::path(folder) / name;
      if (access(program.c_str(), X_OK) == 0) return program.string();
    }
  }
  return std::nullopt;
}

Seen open_in_browser(const std::string& browser, const std::vector<Visit>& visits, bool dark) {
  const fs::path folder = fresh_folder();
  fs::create_directories(folder);
  std::ofstream(folder / "pages.html") << around(visits);
  // A container has no sandbox for it, and little shared memory.
  const std::string command =
      "HOME=" + quoted(folder) + " timeout -k 5 90 " + quoted(browser) +
      " --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
      " --window-size=1400,1000 --virtual-time-budget=10000 --enable-logging=stderr --v=0" +
      (dark ? " --blink-settings=preferredColorScheme=0" : "") +
      " --user-data-dir=" + quoted(folder / "profile") + " --dump-dom " +
      quoted("file://" + fs::absolute(folder / "pages.html").string()) + " >" +
      quoted(folder / "dom") + " 2>" + quoted(folder / "log");
  const int status = std::system(command.c_str());  // NOLINT: the words are this file's own
  const std::string log = bytes(folder / "log");
  const std::string seen = between(bytes(folder / "dom"), "<pre id=\"seen\">", "</pre>");
  if (seen.empty()) {
    throw std::runtime_error("browser: exit status " + std::to_string(status) +
                             " and no answer; it says:\n" + log);
  }
  Seen result{.pages = json::parse(percent_decoded(seen)), .console = {}};
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("CONSOLE") != std::string::npos) result.console.push_back(line);
  }
  return result;
}

}  // namespace nanoflex
