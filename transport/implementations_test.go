package transport_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryImplementationRunsTheSuite(t *testing.T) {
	implementing, running := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := filepath.Dir(path)
		if strings.HasSuffix(path, "_test.go") {
			running[folder] = running[folder] || callsTheSuite(file)
		} else {
			implementing[folder] = implementing[folder] || makesConns(file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for folder, yes := range implementing {
		if !yes {
			continue
		}
		found++
		if !running[folder] {
			t.Errorf("transport/%s makes transport.Conns, and none of its tests calls transporttest.Run", folder)
		}
	}
	if found < 5 {
		t.Errorf("found %d implementations only: does makesConns still know one?", found)
	}
}

// makesConns: a method returns a transport.Conn, as Dial and Accept do, or a
// type is declared to be one.
func makesConns(file *ast.File) bool {
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv != nil && n.Type.Results != nil {
				for _, result := range n.Type.Results.List {
					found = found || isSelector(result.Type, "transport", "Conn")
				}
			}
		case *ast.ValueSpec:
			found = found || isSelector(n.Type, "transport", "Conn")
		}
		return true
	})
	return found
}

// callsTheSuite also knows the call from within transporttest.
func callsTheSuite(file *ast.File) bool {
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			name, ok := call.Fun.(*ast.Ident)
			within := ok && name.Name == "Run" && file.Name.Name == "transporttest"
			found = found || within || isSelector(call.Fun, "transporttest", "Run")
		}
		return true
	})
	return found
}

func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}
