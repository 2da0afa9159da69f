package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"konsul.dev/tools/konsulctl/internal/cli"
)

const checkout = "../../../.."

var (
	quoted = regexp.MustCompile("`konsulctl ([^`\n]+)`")
	word   = regexp.MustCompile(`^[a-z][a-z-]*$`)
	// setting is the name of one: a section's name, a dot, and words in lower case.
	setting = regexp.MustCompile(`\b(server|endpoints|telemetry|registry|gateway|ca|wan_gossip|replicator|failover_router|agent)(\.[a-z_]+)+\b`)
)

// TestWhatAPersonIsToldToRunExists reads every command that messages and documents name.
func TestWhatAPersonIsToldToRunExists(t *testing.T) {
	root := root(&cli.App{})
	named := 0
	for _, folder := range []string{"services", "pkg", "tools", "docs", "README.md"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(checkout, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") || !strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".md") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, found := range quoted.FindAllStringSubmatch(string(text), -1) {
				named++
				if problem := lacks(root, found[1]); problem != "" {
					t.Errorf("%s: `konsulctl %s`: %s", strings.TrimPrefix(path, checkout+"/"), found[1], problem)
				}
			}
			return nil
		}))
	}
	require.Greater(t, named, 20, "the commands that are named were not found")
}

// lacks says what of a command line does not exist; empty: all of it does.
func lacks(root *cobra.Command, line string) string {
	cmd := root
	words := strings.Fields(line)
	for len(words) > 0 && word.MatchString(words[0]) && cmd.HasSubCommands() {
		next, _, err := cmd.Find(words[:1])
		if err != nil || next == cmd {
			return "there is no " + cmd.CommandPath() + " " + words[0]
		}
		cmd, words = next, words[1:]
	}
	cmd.InheritedFlags() // adds those of its parents
	for _, w := range words {
		name, isFlag := strings.CutPrefix(w, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && name != "help" && word.MatchString(name) && cmd.Flag(name) == nil {
			return cmd.CommandPath() + " has no --" + name
		}
	}
	return ""
}

func TestLacksFindsWhatIsNotThere(t *testing.T) {
	root := root(&cli.App{})
	for line, want := range map[string]string{
		"cluster status --all-datacenters": "",
		"kv get KEY":                       "",
		"cluster mend":                     "there is no konsulctl cluster mend",
		"cluster status --everywhere":      "konsulctl cluster status has no --everywhere",
		"mend":                             "there is no konsulctl mend",
	} {
		require.Equal(t, want, lacks(root, line), line)
	}
}

// TestSettingsThatErrorsNameExist reads the table of reasons, which is made of what the code says.
func TestSettingsThatErrorsNameExist(t *testing.T) {
	errors, err := os.ReadFile(filepath.Join(checkout, "docs/errors.md"))
	require.NoError(t, err)
	settings, err := os.ReadFile(filepath.Join(checkout, "docs/configuration.md"))
	require.NoError(t, err)
	named := 0
	for _, line := range strings.Split(string(errors), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, name := range setting.FindAllString(cells[3]+cells[4], -1) {
			named++
			if !strings.Contains(string(settings), "`"+name+"`") && !strings.Contains(string(settings), "`"+name+".") {
				t.Errorf("%s names %s, which is no setting", strings.TrimSpace(cells[1]), name)
			}
		}
	}
	require.Greater(t, named, 10, "the settings that are named were not found")
}
