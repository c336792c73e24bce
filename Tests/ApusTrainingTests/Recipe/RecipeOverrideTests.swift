import ApusExperts
import ApusModels
import ApusTraining
import Testing

@Suite("Overrides")
struct RecipeOverrideTests {
    @Test("an override changes one key, makes groups on the way, and the last one wins")
    func overrides() throws {
        let recipe = try Recipe(
            yaml: Fixture.good,
            overrides: [
                "model.experts.count=16", "training.optimizer.learning_rate=5e-4", "training.steps=5",
                "training.steps=7",
                "model.experts.policy.capacity=2", "data.path=a=b", "model.position={kind: learned}",
            ])
        #expect(recipe.model.moe(layer: 1)?.experts == 16)
        #expect(recipe.training.optimizer.learningRate == 5e-4)
        #expect(recipe.training.steps == 7)
        #expect(recipe.model.moe(layer: 1)?.policy == .capacity(factor: 2, minimum: 4, order: .position))
        #expect(recipe.data.path == "a=b")
        #expect(recipe.model.position == .learned)
    }

    @Test("a list, and a key taken away")
    func others() throws {
        let recipe = try Recipe(
            yaml: Fixture.good,
            overrides: ["model.experts.count=[2, 4]", "model.experts.every=", "model.experts.layers=[0, 3]"])
        #expect(recipe.model.moe(layer: 0)?.experts == 2)
        #expect(recipe.model.moe(layer: 3)?.experts == 4)
        #expect(recipe.model.moe(layer: 1) == nil)
    }

    @Test(
        "a bad override is named as it was given",
        arguments: [
            (
                "model.experts.cuont=16",
                "--set model.experts.cuont=16: model.experts.cuont is no key of model.experts: did you mean count?"
            ),
            ("training.steps=many", "--set training.steps=many: training.steps is \"many\": an integer is needed"),
            ("training.steps", "--set training.steps: has no '=': write key=value, for example training.steps=500"),
            ("=5", "--set =5: names no key before '='"),
            ("training..steps=5", "--set training..steps=5: names no key"),
            ("training.steps=[5", "--set training.steps=[5: training.steps is not YAML"),
            ("training.steps={a: 1, a: 2}", "training.steps.a is given here more than once"),
            ("training.steps.x=5", "--set training.steps.x=5: training.steps is a group of keys: an integer is needed"),
            (
                "model.experts.choices=9",
                "--set model.experts.choices=9: model.experts.choices is 9, more than the 8 experts"
            ),
            (
                "training.micro_batch=3",
                "--set training.micro_batch=3: training.micro_batch is 3, which does not divide batch 8"
            ),
            ("training.steps=", "training.steps is missing"),
            ("training=5", "--set training=5: training is 5: a group of keys is needed"),
            ("modle.layers=5", "--set modle.layers=5: modle is no key of a recipe: did you mean model?"),
            ("seed=&a 1", "--set seed=&a 1: seed has an anchor"),
        ])
    func bad(_ text: String, _ expected: String) {
        let complaint = Fixture.complaint(Fixture.good, overrides: [text])
        #expect(complaint.contains(expected), "\(complaint)")
    }

    @Test("a problem in the file still names its line when another key is overridden")
    func places() {
        let complaint = Fixture.complaint(
            Fixture.good.replacing("steps: 100", with: "steps: x"), overrides: ["training.batch=4"])
        #expect(complaint.hasPrefix("test.yaml:17: training.steps"))
    }
}
