package definitions_test

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/agent/internal/definitions"
)

const payment = "service: {name: payment-api, port: 8080}\n"

func file(content string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(content)} }

func ids(set definitions.Set) []string {
	var ids []string
	for _, d := range set.Definitions {
		ids = append(ids, d.ID)
	}
	return ids
}

func TestReadsDefinitionsAndIgnoresTheRest(t *testing.T) {
	folder := fstest.MapFS{
		"b.yaml": file(payment), "a.yml": file("service: {name: api}"), "notes.txt": file("x"),
		".half.yaml": file("x"), "sub/c.yaml": file("service: {name: c}"), "c.json": file(`{"service": {"name": "dropped", "port": 80}}`),
		"d.YAML": file("services: [{name: d1}, {name: d2}]"), "README": file("x"),
	}
	set, problems, changed := definitions.New(folder, "us-east").Load()
	require.Empty(t, problems)
	require.True(t, changed)
	require.True(t, set.Complete)
	require.Equal(t, []string{"api", "d1", "d2", "dropped", "payment-api"}, ids(set))
	require.Equal(t, []string{"README", "notes.txt", "sub/"}, set.Ignored, "what is not read is named, but for hidden files")
}

func TestAnotherIgnoredFileIsAChange(t *testing.T) {
	folder := fstest.MapFS{"a.yaml": file(payment)}
	loader := definitions.New(folder, "us-east")
	loader.Load()
	folder["web.txt"] = file("x")
	set, _, changed := loader.Load()
	require.True(t, changed)
	require.Equal(t, []string{"web.txt"}, set.Ignored)
	_, _, changed = loader.Load()
	require.False(t, changed)
}

func TestHCLIsAProblemAndKeepsWhatItMayMean(t *testing.T) {
	set, problems, _ := definitions.New(fstest.MapFS{"web.hcl": file(`service { name = "web" }`)}, "us-east").Load()
	require.Len(t, problems, 1)
	require.ErrorContains(t, problems[0].Err, "HCL")
	require.False(t, set.Complete)
}

func TestOneBadServiceKeepsTheWholeFile(t *testing.T) {
	folder := fstest.MapFS{"a.yaml": file("services: [{name: a}, {name: b}]")}
	loader := definitions.New(folder, "us-east")
	loader.Load()
	folder["a.yaml"] = file("services: [{name: a}, {name: b, datacenter: us-west}]")
	set, problems, _ := loader.Load()
	require.Len(t, problems, 1)
	require.Equal(t, []string{"a", "b"}, ids(set))
}

func TestNoFolderIsAnEmptyOne(t *testing.T) {
	set, problems, _ := definitions.New(nil, "us-east").Load()
	require.Empty(t, problems)
	require.True(t, set.Complete)
	require.Empty(t, set.Definitions)
}

func TestChangeIsNoticedOnce(t *testing.T) {
	folder := fstest.MapFS{"a.yaml": file(payment)}
	loader := definitions.New(folder, "us-east")
	_, _, changed := loader.Load()
	require.True(t, changed)
	_, _, changed = loader.Load()
	require.False(t, changed)

	folder["a.yaml"] = file("service: {name: payment-api, port: 9090}")
	set, _, changed := loader.Load()
	require.True(t, changed)
	require.Equal(t, uint16(9090), set.Definitions[0].Port)

	delete(folder, "a.yaml")
	set, _, changed = loader.Load()
	require.True(t, changed)
	require.True(t, set.Complete)
	require.Empty(t, set.Definitions)
	_, _, changed = loader.Load()
	require.False(t, changed)
}

func TestBadFileKeepsTheLastGoodVersion(t *testing.T) {
	for name, bad := range map[string]string{
		"unknown key": "service: {name: payment-api, prot: 1}", "no yaml": "service: [", "empty": "", "wrong datacenter": "service: {name: payment-api, datacenter: us-west}",
	} {
		t.Run(name, func(t *testing.T) {
			folder := fstest.MapFS{"a.yaml": file(payment)}
			loader := definitions.New(folder, "us-east")
			loader.Load()
			folder["a.yaml"] = file(bad)
			set, problems, changed := loader.Load()
			require.True(t, changed)
			require.Len(t, problems, 1)
			require.Equal(t, "a.yaml", problems[0].File)
			require.Equal(t, uint16(8080), set.Definitions[0].Port)
			require.True(t, set.Complete, "it is known which service the file means")
			_, problems, changed = loader.Load()
			require.False(t, changed)
			require.Len(t, problems, 1)

			folder["a.yaml"] = file("service: {name: payment-api, port: 1}")
			set, problems, _ = loader.Load()
			require.Empty(t, problems)
			require.Equal(t, uint16(1), set.Definitions[0].Port)
		})
	}
}

func TestProblemNamesTheField(t *testing.T) {
	_, problems, _ := definitions.New(fstest.MapFS{"a.yaml": file("service: {name: x, prot: 1}")}, "us-east").Load()
	require.Len(t, problems, 1)
	require.ErrorContains(t, problems[0].Err, "service.prot")
}

func TestBadFileWithoutAGoodVersionMakesTheSetIncomplete(t *testing.T) {
	folder := fstest.MapFS{"a.yaml": file("service: ["), "b.yaml": file(payment)}
	loader := definitions.New(folder, "us-east")
	set, problems, _ := loader.Load()
	require.Len(t, problems, 1)
	require.False(t, set.Complete)
	require.Equal(t, []string{"payment-api"}, ids(set))
	delete(folder, "a.yaml")
	set, _, _ = loader.Load()
	require.True(t, set.Complete)
}

func TestFirstFileKeepsTheID(t *testing.T) {
	set, problems, _ := definitions.New(fstest.MapFS{"a.yaml": file(payment), "b.yaml": file("service: {name: other, id: payment-api}")}, "us-east").Load()
	require.Len(t, problems, 1)
	require.Equal(t, "b.yaml", problems[0].File)
	require.ErrorContains(t, problems[0].Err, "a.yaml")
	require.Equal(t, "payment-api", set.Definitions[0].Name)
}

// broken is a folder that can be taken away.
type broken struct {
	fs.FS
	gone bool
}

func (b *broken) Open(name string) (fs.File, error) {
	if b.gone {
		return nil, fs.ErrPermission
	}
	return b.FS.Open(name)
}

func TestUnreadableFolderKeepsEverything(t *testing.T) {
	folder := &broken{FS: fstest.MapFS{"a.yaml": file(payment)}}
	loader := definitions.New(folder, "us-east")
	loader.Load()
	folder.gone = true
	set, problems, changed := loader.Load()
	require.True(t, changed)
	require.False(t, set.Complete)
	require.Equal(t, []string{"payment-api"}, ids(set))
	require.Equal(t, ".", problems[0].File)
	_, _, changed = loader.Load()
	require.False(t, changed)
	folder.gone = false
	set, problems, changed = loader.Load()
	require.True(t, changed)
	require.True(t, set.Complete)
	require.Empty(t, problems)
}
