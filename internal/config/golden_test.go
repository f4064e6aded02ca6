package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the expected output anew")

// noEnvironment is an environment in which nothing is set.
func noEnvironment(string) (string, bool) { return "", false }

func TestEachMistakeIsReportedWithItsPlaceAndWhatToWrite(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, path := range append(files, "testdata/design.toml") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			file, problems := Parse(filepath.Base(path), string(text), noEnvironment)
			if (file == nil) != problems.Fatal() || len(problems) == 0 {
				t.Errorf("file %v with problems\n%v", file, problems)
			}
			golden(t, strings.TrimSuffix(path, ".toml")+".golden", problems.String())
		})
	}
}

// golden holds got against the file at path, or writes it there with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is out of date (go test ./internal/config -update):\ngot\n%s\nwant\n%s", path, got, want)
	}
}
