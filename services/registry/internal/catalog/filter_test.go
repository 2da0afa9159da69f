package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
)

// filtered is a catalogue of two instances that differ in everything.
func filtered(t require.TestingT) *world {
	w := newWorld(t)
	one := registration("n1", "a", "api", &registryv1.Check{Id: "http", Status: warning})
	one.Node.Meta = map[string]string{"rack": "r1"}
	one.Service.Meta = map[string]string{"version": "1.2", "empty": "", "a.b": "dots"}
	one.Service.Weights = &registryv1.Weights{Passing: 10, Warning: 2}
	w.register(one)
	two := registration("n2", "b", "api")
	two.Service.Tags, two.Service.Port = nil, 81
	w.register(two)
	return w
}

func (w *world) matching(t *testing.T, expression string) string {
	t.Helper()
	filter, err := catalog.ParseInstanceFilter(expression)
	require.NoError(t, err, expression)
	instances, _ := w.view.Query("api", catalog.Selection{Filter: filter})
	ids := ""
	for _, i := range instances {
		ids += i.GetService().GetId()
	}
	return ids
}

func TestFilterSelects(t *testing.T) {
	w := filtered(t)
	for expression, want := range map[string]string{
		"":                  "ab",
		`Service.ID == "a"`: "a",
		`service.id == a`:   "a",
		`Service.ID != "a"`: "b",
		`Node.Name == "n2"`: "b",
		`Node.Address matches "^10[.]0[.]0[.]1$"`: "a",
		`Node.Address not matches "1$"`:           "b",
		`Service.Port == 80`:                      "a",
		`Service.Port != 80`:                      "b",
		`"v1" in Service.Tags`:                    "a",
		`"v1" not in Service.Tags`:                "b",
		`Service.Tags contains "v1"`:              "a",
		`Service.Tags is empty`:                   "b",
		`Service.Tags is not empty`:               "a",
		`Service.Meta.version == "1.2"`:           "a",
		`Service.Meta.version != "1.2"`:           "b",
		`Service.Meta["version"] contains "1."`:   "a",
		`"1." in Service.Meta.version`:            "a",
		`Service.Meta.version is nil`:             "b",
		`Service.Meta.empty is empty`:             "ab",
		`Service.Meta.empty is not nil`:           "a",
		`"version" in Service.Meta`:               "a",
		`Service.Meta["a.b"] == "dots"`:           "a",
		`Service.Meta is empty`:                   "b",
		`Node.Meta.rack == "r1"`:                  "a",
		`Service.Weights.Passing == 10`:           "a",
		`Service.Weights.Warning == 1`:            "b",
		`Checks.http == "warning"`:                "a",
		`"http" in Checks`:                        "a",
		`Node.Checks is empty`:                    "ab",
		`Status == "passing"`:                     "b",
		`Status == passing or Service.Port == 80`: "ab",
		`not (Status == "passing" or Service.ID == "x") and Datacenter == "dc1"`: "a",
		`Service.Port == 80 and Service.Port == 81`:                              "",
	} {
		t.Run(expression, func(t *testing.T) { require.Equal(t, want, w.matching(t, expression)) })
	}
}

func TestNodeFilterSelects(t *testing.T) {
	w := filtered(t)
	plan, err := w.w.SetMaintenance(w.view, &registryv1.SetMaintenanceRequest{Node: "n2", Enabled: true}, time.Unix(9, 0))
	require.NoError(t, err)
	w.do(plan)
	for expression, want := range map[string]string{
		`Meta.rack == "r1"`:                  "n1",
		`Status == "critical"`:               "n2",
		`Checks["_maintenance"] is not nil`:  "n2",
		`Name matches "n" and Address != ""`: "n1n2",
	} {
		filter, err := catalog.ParseNodeFilter(expression)
		require.NoError(t, err)
		nodes, _ := w.view.Nodes(catalog.NodeSelection{Filter: filter})
		names := ""
		for _, n := range nodes {
			names += n.GetName()
		}
		require.Equal(t, want, names, expression)
	}
}

func TestBadFiltersNameThePosition(t *testing.T) {
	for expression, want := range map[string]string{
		`Service.Naem == "x"`:                        `there is no field "Service.Naem", at 1:1`,
		`Status == "x" and Servic.Name == "y"`:       `there is no field "Servic.Name", at 1:19`,
		"Status == \"x\" and\n Servic.Name == \"y\"": "at 2:2",
		`Status.Text == "x"`:                         `Status has no field "Text", at 1:1`,
		`Service.Port == "http"`:                     `"http", which is no number`,
		`Service.Port contains "8"`:                  "is a number",
		`Service.Tags == "x"`:                        "holds many values",
		`Service.Name matches "("`:                   "is no regular expression",
		`Status ==`:                                  "cannot be read at 1:",
		`Status == "x`:                               "cannot be read at 1:",
		`any Service.Tags as t { t == "x" }`:         "any or all",
		strings.Repeat("x", 3000):                    "at most 2048",
		strings.Repeat("(", 200) + "Status == x" + strings.Repeat(")", 200):     "parentheses",
		strings.Repeat("not (", 90) + `Status == "x"` + strings.Repeat(")", 90): "parentheses",
	} {
		_, err := catalog.ParseInstanceFilter(expression)
		f, ok := fault.As(err)
		require.True(t, ok, "%s: %v", expression, err)
		require.Equal(t, "filter", f.Field())
		require.Equal(t, fault.InvalidArgument, f.Code())
		require.Contains(t, f.Message()+" "+f.Remedy(), want, expression)
		require.NotEmpty(t, f.Remedy())
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		"", `Service.ID == "a"`, `not (Status == "passing" or "v1" in Service.Tags)`, `Service.Meta["a.b"] matches "^x"`, "((((((((", `"/Service/Tags" is empty`,
		`any Checks as c { c == 1 }`, `Service.Port == 08`, "Node.Meta.x is not nil", "\x00\xff",
	} {
		f.Add(seed)
	}
	w := filtered(f)
	f.Fuzz(func(t *testing.T, expression string) {
		begun := time.Now()
		filter, err := catalog.ParseInstanceFilter(expression)
		require.Less(t, time.Since(begun), 5*time.Second, "reading is bounded")
		if err != nil {
			got, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, "filter", got.Field())
			return
		}
		all, _ := w.view.Query("api", catalog.Selection{})
		some, _ := w.view.Query("api", catalog.Selection{Filter: filter})
		require.LessOrEqual(t, len(some), len(all))
		if expression == "" || len(expression) > 2<<10-6 {
			return
		}
		rest, err := catalog.ParseInstanceFilter("not (" + expression + ")")
		if err == nil {
			others, _ := w.view.Query("api", catalog.Selection{Filter: rest})
			require.Equal(t, len(all), len(some)+len(others), "what matches and what does not is everything")
		}
	})
}
