// The layers of a config: defaults < YAML file < command line.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <stdexcept>

#include "attention/nearest.h"
#include "trainer/config.h"

namespace nanoflex {
namespace {

[[noreturn]] void reject_layer(const std::string& where, const std::string& what) {
  throw std::invalid_argument("[config] " + where + ": " + what);
}

std::string suggestion(const std::string& name, const std::vector<std::string>& valid) {
  const std::string close = nearest(name, valid);
  return close.empty() ? "; known: " + join(valid) : "; did you mean '" + close + "'?";
}

std::string line_of(const std::filesystem::path& file, const YAML::Node& node) {
  return file.string() + ":" + std::to_string(node.Mark().line + 1);
}

std::vector<std::string> section_names() {
  std::vector<std::string> sections;
  for (const Key& key : config_keys()) {
    if (sections.empty() || sections.back() != key.section) sections.push_back(key.section);
  }
  return sections;
}

const Key& key_of(const std::string& section, const std::string& name, const std::string& where) {
  std::vector<std::string> valid;
  for (const Key& key : config_keys()) {
    if (key.section == section && key.name == name) return key;
    if (key.name == name) {
      reject_layer(where, "key '" + name + "' belongs to section '" + key.section + "', is in '" +
                              section + "'");
    }
    if (key.section == section) valid.push_back(key.name);
  }
  const bool known_section = !valid.empty();
  if (!known_section) {
    reject_layer(where, "unknown section '" + section + "'" + suggestion(section, section_names()));
  }
  for (const Key& key : config_keys()) {
    if (key.section != section) valid.push_back(key.name);
  }
  reject_layer(where,
               "unknown key '" + name + "' in section '" + section + "'" + suggestion(name, valid));
}

using Settings = std::vector<std::pair<const Key*, std::pair<std::string, std::string>>>;

// Applies one layer: {key, {value, where}}.
void apply_layer(Config& config, const Settings& settings) {
  const auto ends_run = [](const auto& setting) {
    const std::string& name = setting.first->name;
    return setting.second.first != "null" &&
           (name == "target_flops" || name == "max_steps" || name == "max_seconds");
  };
  if (std::any_of(settings.begin(), settings.end(), ends_run)) {
    config.target_flops = std::nullopt;
    config.max_steps = std::nullopt;
    config.max_seconds = std::nullopt;
  }
  for (const auto& [key, value] : settings) {
    if (key->name != "learning_rate") continue;  // it sets all three, unless named beside it
    config.matrix_lr = config.embedding_lr = config.unembedding_lr = std::nullopt;
  }
  for (const auto& [key, value] : settings) set_key(config, *key, value.first, value.second);
}

void read_section(const std::filesystem::path& file, const std::string& section,
                  const YAML::Node& keys, Settings& settings) {
  if (keys.IsNull()) return;
  if (!keys.IsMap()) reject_layer(line_of(file, keys), "section '" + section + "' must hold keys");
  std::set<std::string> seen;
  for (const auto& entry : keys) {
    const std::string where = line_of(file, entry.first);
    if (!entry.first.IsScalar()) reject_layer(where, "a key must be a plain name");
    const std::string name = entry.first.Scalar();
    const Key& key = key_of(section, name, where);
    if (!seen.insert(name).second) reject_layer(where, "key '" + name + "' stands here twice");
    if (!entry.second.IsScalar() && !entry.second.IsNull()) {
      reject_layer(where, name + " must be a single value, is a list or a map");
    }
    const bool text_key = std::holds_alternative<std::string Config::*>(key.field);
    const std::string none = text_key ? "" : "null";
    settings.push_back({&key, {entry.second.IsNull() ? none : entry.second.Scalar(), where}});
  }
}

// Where the documents of a file begin; of what is in them nothing.
struct DocumentStarts : YAML::EventHandler {
  using Text = const std::string&;
  std::vector<YAML::Mark> marks;
  void OnDocumentStart(const YAML::Mark& mark) override { marks.push_back(mark); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, Text, YAML::anchor_t, Text) override {}
  void OnSequenceStart(const YAML::Mark&, Text, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, Text, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// The only document of a file. Not YAML::LoadAll: a ',' where a document may begin is one without
// an end to it, again and again.
YAML::Node only_document(const std::filesystem::path& file) {
  const YAML::Node document = YAML::LoadFile(file.string());
  std::ifstream stream(file);
  YAML::Parser parser(stream);
  DocumentStarts starts;
  while (starts.marks.size() < 2 && parser.HandleNextDocument(starts)) continue;
  if (starts.marks.size() == 2) {
    reject_layer(
        file.string() + ":" + std::to_string(starts.marks[1].line + 1),
        "a second document begins; a config is one, without '---' or ',' between its sections");
  }
  return document;
}

}  // namespace

const Key& find_key(const std::string& path, const std::string& where) {
  const size_t dot = path.find('.');
  if (dot == std::string::npos) {
    reject_layer(where, "'" + path + "' must be section.key, such as model.n_layer");
  }
  return key_of(path.substr(0, dot), path.substr(dot + 1), where);
}

void apply_settings(Config& config,
                    const std::vector<std::pair<const Key*, std::string>>& settings) {
  Settings layer;
  for (const auto& [key, value] : settings) layer.push_back({key, {value, "--" + key->flag()}});
  apply_layer(config, layer);
}

void apply_yaml(Config& config, const std::filesystem::path& file) try {
  if (std::filesystem::is_directory(file)) {
    throw std::invalid_argument("[config] " + file.string() + " is a folder; name a YAML file");
  }
  const YAML::Node root = only_document(file);
  if (root.IsNull()) return;
  if (!root.IsMap()) reject_layer(file.string() + ":1", "must be sections that hold keys");
  Settings settings;
  std::set<std::string> seen;
  for (const auto& entry : root) {
    const std::string where = line_of(file, entry.first);
    if (!entry.first.IsScalar()) reject_layer(where, "a section must be a plain name");
    const std::string section = entry.first.Scalar();
    const std::vector<std::string> sections = section_names();
    if (std::find(sections.begin(), sections.end(), section) == sections.end()) {
      reject_layer(where, "unknown section '" + section + "'" + suggestion(section, sections));
    }
    if (!seen.insert(section).second)
      reject_layer(where, "section '" + section + "' stands here twice");
    read_section(file, section, entry.second, settings);
  }
  apply_layer(config, settings);
} catch (const YAML::BadFile&) {
  throw std::invalid_argument("[config] cannot read " + file.string() + "; does it exist?");
} catch (const YAML::Exception& problem) {
  reject_layer(file.string() + ":" + std::to_string(problem.mark.line + 1), problem.msg);
}

std::string to_yaml(const Config& config) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const std::string& section : section_names()) {
    out << YAML::Key << section << YAML::Value << YAML::BeginMap;
    for (const Key& key : config_keys()) {
      if (key.section != section) continue;
      out << YAML::Key << key.name << YAML::Value;
      if (key_json(config, key).is_null()) {
        out << YAML::Null;
      } else {
        out << key_text(config, key);
      }
      out << YAML::Comment(key.help);
    }
    out << YAML::EndMap;
  }
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

}  // namespace nanoflex
