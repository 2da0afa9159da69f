package reference_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/guard/internal/reference"
	"konsul.dev/tools/guard/internal/tree"
	"konsul.dev/tools/guard/internal/tree/treetest"
)

func TestErrorsPageIsTrue(t *testing.T) {
	treetest.Run(t, "testdata/errors*.txtar", reference.Errors)
}

func TestMetricsPageIsTrue(t *testing.T) {
	treetest.Run(t, "testdata/metrics*.txtar", reference.Metrics)
}

func TestConfigurationPageIsTrue(t *testing.T) {
	treetest.Run(t, "testdata/settings*.txtar", reference.Settings)
}

func TestTheGlossaryDefinesEachWordOnce(t *testing.T) {
	treetest.Run(t, "testdata/glossary*.txtar", reference.Glossary)
}

// TestFixDocsMendsWhatCheckFinds renders the pages of a tree whose pages are wrong, and expects
// what the archive has under the page's name with .want behind.
func TestFixDocsMendsWhatCheckFinds(t *testing.T) {
	checkout, _ := treetest.Read(t, "testdata/errors-outdated.txtar")
	pages := reference.Pages(checkout)
	got, err := pages[0].Render(checkout)
	require.NoError(t, err)
	want, ok := checkout.File("docs/errors.md.want")
	require.True(t, ok)
	require.Equal(t, string(want.Text), string(got))
}

func TestRenderSaysWhatAPageLacks(t *testing.T) {
	for _, page := range reference.Pages(&tree.Tree{}) {
		_, err := page.Render(&tree.Tree{})
		require.ErrorContains(t, err, page.File+" is missing")
		_, err = page.Render(&tree.Tree{Files: []*tree.File{{Name: page.File, Text: []byte("no marks")}}})
		require.ErrorContains(t, err, "lacks the marks")
	}
}
